//! What is broken, as plain data, and the steps that undo it.
//!
//! A [`Plan`] says what will be broken; its [`Undo`] is known before anything is. One function,
//! [`heal`], serves whoever has to mend: the check itself, after a signal, after a panic.

mod stop;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{self, At, Clock};
use crate::incus::{Error, Incus};
use crate::instance::InstanceName;

/// How often a step of healing is tried again.
const RETRY_EVERY: Duration = Duration::from_millis(250);

/// How a target is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Nothing is broken: the observation alone, as a control that must show no outage.
    None,
    /// The instance is stopped by force: a power cut.
    Stop,
}

/// Not a kind of fault.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a kind of fault; there are: none, stop")]
pub struct UnknownKind(String);

impl std::str::FromStr for Kind {
    type Err = UnknownKind;
    fn from_str(text: &str) -> Result<Kind, UnknownKind> {
        match text {
            "none" => Ok(Kind::None),
            "stop" => Ok(Kind::Stop),
            other => Err(UnknownKind(other.to_owned())),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::None => "none",
            Kind::Stop => "stop",
        })
    }
}

/// An instance to break, as it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The instance.
    pub instance: InstanceName,
    /// Its init process before the fault, as the host sees it: a new start has another one.
    pub init_pid: i64,
}

/// What will be broken. Data only: it can be written down before the fault and read by whoever has
/// to undo it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The system that the targets belong to, for people.
    pub system: String,
    /// How they are broken.
    pub kind: Kind,
    /// What is broken; running, all of them.
    pub targets: Vec<Target>,
    /// The longest that the fault may stay, in seconds.
    pub ttl_s: u64,
}

/// One step of undoing. A closed list, so that everyone who heals knows every step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "step")]
pub enum UndoStep {
    /// Start an instance that was running before.
    Start {
        /// The instance, as it was found.
        target: Target,
    },
}

impl fmt::Display for UndoStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UndoStep::Start { target } => write!(f, "start {}", target.instance),
        }
    }
}

/// The steps that undo a fault, in the order in which they are taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undo {
    /// The steps.
    pub steps: Vec<UndoStep>,
}

impl Plan {
    /// The steps that will undo this plan.
    pub fn undo(&self) -> Undo {
        let step = |target: &Target| match self.kind {
            Kind::None => None,
            Kind::Stop => Some(UndoStep::Start {
                target: target.clone(),
            }),
        };
        // The last one broken is mended first.
        Undo {
            steps: self.targets.iter().rev().filter_map(step).collect(),
        }
    }
}

/// A fault that was injected, wholly or in part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What was to be broken.
    pub plan: Plan,
    /// Time zero: read before the first injecting call.
    pub called: At,
    /// When the last injecting call had returned.
    pub returned: At,
    /// What an injecting call that failed said. The fault may have taken hold all the same.
    pub trouble: Option<String>,
    /// Proof, from something other than the injector, that the fault took hold.
    pub evidence: Option<Evidence>,
}

/// Proof that a fault took hold: the target gives no protocol answer while a control member answers
/// over the same path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// When the control's answer was in: the second mark of the fault.
    pub at: At,
    /// What the target did not do.
    pub target: String,
    /// The member that did answer, and how.
    pub control: String,
}

/// Injects a fault: every target, one by one. Never cancelled by a signal: an injecting call that is
/// dropped could still break something after healing.
///
/// A call that fails makes a fault, too (in [`Fault::trouble`]): once something was asked for, only
/// healing knows that nothing is broken.
pub async fn inject(incus: &Incus, clock: &Clock, plan: &Plan) -> Fault {
    let called = clock.at();
    let mut trouble = None;
    for target in &plan.targets {
        let done = match plan.kind {
            Kind::None => Ok(()),
            Kind::Stop => stop::inject(incus, target).await,
        };
        if let Err(error) = done {
            trouble = Some(error.to_string());
            break;
        }
    }
    Fault {
        plan: plan.clone(),
        called,
        returned: clock.at(),
        trouble,
        evidence: None,
    }
}

/// A step of healing, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealedStep {
    /// The step, for people.
    pub step: String,
    /// When it was begun.
    pub began: At,
    /// When it was done; none when it was not.
    pub done: Option<At>,
    /// What was found and done, or the last trouble.
    pub words: String,
}

/// What healing did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Healed {
    /// Every step of the undo.
    pub steps: Vec<HealedStep>,
}

impl Healed {
    /// Whether every step was done: Incus shows the state that was found.
    pub fn undone(&self) -> bool {
        self.steps.iter().all(|s| s.done.is_some())
    }
}

/// Undoes a fault: every step, each tried again until `limit` has passed in all. Safe to repeat; a
/// target that is as it was found is left alone.
pub async fn heal(incus: &Incus, clock: &Clock, undo: &Undo, limit: Duration) -> Healed {
    let deadline = clock.at().plus(limit);
    let mut steps = Vec::new();
    for step in &undo.steps {
        let began = clock.at();
        let (done, words) = persist(incus, clock, step, deadline).await;
        steps.push(HealedStep {
            step: step.to_string(),
            began,
            done,
            words,
        });
    }
    Healed { steps }
}

/// Tries one step until it is done or the deadline has passed; at least once.
async fn persist(
    incus: &Incus,
    clock: &Clock,
    step: &UndoStep,
    deadline: At,
) -> (Option<At>, String) {
    loop {
        let tried = match step {
            UndoStep::Start { target } => stop::undo(incus, target).await,
        };
        let trouble = match tried {
            Ok(Progress::Done(words)) => return (Some(clock.at()), words),
            Ok(Progress::NotYet(words)) => words,
            // Busy, restarting, an operation that a restarted server forgot: the next look decides.
            Err(error) => error.to_string(),
        };
        if clock.at() >= deadline {
            return (None, trouble);
        }
        clock::sleep(RETRY_EVERY).await;
    }
}

/// How far one try of an undo step came.
enum Progress {
    /// It is as it was found; what was found and done.
    Done(String),
    /// Not yet; what stands in the way.
    NotYet(String),
}

/// One try of an undo step.
type Tried = Result<Progress, Error>;

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(kind: Kind) -> Plan {
        let target = |name: &str, init_pid| Target {
            instance: InstanceName::new(name).unwrap(),
            init_pid,
        };
        let targets = vec![target("pg-a", 10), target("pg-b", 20)];
        Plan {
            system: "formation default".into(),
            kind,
            targets,
            ttl_s: 90,
        }
    }

    #[test]
    fn undo_is_known_before_the_fault_and_runs_backwards() {
        let undo = plan(Kind::Stop).undo();
        let steps: Vec<String> = undo.steps.iter().map(ToString::to_string).collect();
        assert_eq!(steps, ["start pg-b", "start pg-a"]);
        assert!(plan(Kind::None).undo().steps.is_empty());
    }

    #[test]
    fn plan_and_undo_are_plain_data() {
        let undo = plan(Kind::Stop).undo();
        let text = serde_json::to_string(&undo).unwrap();
        assert_eq!(serde_json::from_str::<Undo>(&text).unwrap(), undo);
        let text = serde_json::to_string(&plan(Kind::Stop)).unwrap();
        assert_eq!(
            serde_json::from_str::<Plan>(&text).unwrap(),
            plan(Kind::Stop)
        );
    }

    #[test]
    fn one_step_that_was_not_done_is_not_undone() {
        let step = |done| HealedStep {
            step: "start a".into(),
            began: At(0),
            done,
            words: String::new(),
        };
        assert!(
            Healed {
                steps: vec![step(Some(At(1)))]
            }
            .undone()
        );
        assert!(
            !Healed {
                steps: vec![step(Some(At(1))), step(None)]
            }
            .undone()
        );
    }

    #[tokio::test]
    async fn healing_without_a_server_ends_at_its_limit_and_says_why() {
        let incus = Incus::new(std::path::Path::new("/nowhere/unix.socket"), "p").unwrap();
        let clock = Clock::start();
        let undo = plan(Kind::Stop).undo();
        let healed = heal(&incus, &clock, &undo, Duration::from_millis(300)).await;
        assert!(!healed.undone());
        assert_eq!(healed.steps.len(), 2);
        assert!(healed.steps[0].words.contains("/nowhere"), "{healed:?}");
    }
}
