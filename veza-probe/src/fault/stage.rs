//! Stages: what is broken later, on top of what was broken before.
//!
//! In real life: the monitoring of a system is lost, nobody notices, and then the system itself fails. What
//! undoes all stages is known, and written down, before the first of them; they are undone together, what
//! was broken last first. So it makes no difference between which stages a check ends.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Evidence, Fault, Kind, Plan, Target, UndoStep, Unfit, all_seen, break_all, prepare};
use crate::clock::{At, Clock};
use crate::incus::Incus;
use crate::instance::InstanceName;
use crate::pulse::Pulse;

/// What is broken later. Its undo is that of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stage {
    /// How it is broken.
    pub kind: Kind,
    /// What is broken; running before anything is.
    pub targets: Vec<Target>,
}

/// A stage that was injected, wholly or in part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Injected {
    /// Read before the first injecting call.
    pub called: At,
    /// When the last injecting call had returned.
    pub returned: At,
    /// What an injecting call that failed said. The fault may have taken hold all the same.
    pub trouble: Option<String>,
    /// Proof, from something other than the injector, that it took hold.
    pub evidence: Option<Evidence>,
}

impl Plan {
    /// How things are broken, in words and without saying whom: what has to be equal for two runs to be
    /// comparable.
    pub fn kinds(&self) -> String {
        kinds(&self.kind, &self.later)
    }

    /// Every instance that is broken, sooner or later, each once.
    pub fn instances(&self) -> Vec<InstanceName> {
        let later = self.later.iter().flat_map(|stage| &stage.targets);
        let mut all: Vec<InstanceName> = Vec::new();
        for target in self.targets.iter().chain(later) {
            if !all.contains(&target.instance) {
                all.push(target.instance.clone());
            }
        }
        all
    }

    /// Takes over what is broken after all that it has: that is mended first. Whether servers answer is asked
    /// when everything was started, because one may wait for another.
    fn append(&mut self, next: Plan) {
        let (answers, changes): (Vec<_>, Vec<_>) = next
            .undo
            .steps
            .into_iter()
            .partition(|step| matches!(step, UndoStep::Answers { .. }));
        self.undo.steps.splice(0..0, changes);
        self.undo.steps.extend(answers);
        self.notes.extend(next.notes);
        self.later.push(Stage {
            kind: next.kind,
            targets: next.targets,
        });
    }
}

/// The kind of a fault with those of its stages.
pub(crate) fn kinds(kind: &Kind, later: &[Stage]) -> String {
    let later = later.iter().map(|stage| &stage.kind);
    let all: Vec<String> = [kind]
        .into_iter()
        .chain(later)
        .map(Kind::to_string)
        .collect();
    all.join(", then ")
}

impl Fault {
    /// Whether all that was planned was broken, and was seen to be by something other than the injector.
    pub fn is_proven(&self) -> bool {
        self.evidence.is_some()
            && self.later.len() == self.plan.later.len()
            && self.later.iter().all(|stage| stage.evidence.is_some())
    }

    /// What an injecting call said that failed, the first of them.
    pub fn first_trouble(&self) -> Option<&String> {
        let later = self.later.iter().filter_map(|stage| stage.trouble.as_ref());
        self.trouble.iter().chain(later).next()
    }
}

/// Adds a stage to a plan: reads what it will change, so that it can be put back exactly so. Nothing is
/// touched.
///
/// # Errors
/// [`Unfit`]
pub async fn prepare_later(
    incus: &Incus,
    plan: &mut Plan,
    kind: &Kind,
    targets: &[InstanceName],
    pulses: &[Pulse],
) -> Result<(), Unfit> {
    let next = prepare(incus, &plan.system, kind, targets, pulses).await?;
    plan.append(next);
    Ok(())
}

/// Injects a stage of a plan: every target, one by one. As [`super::inject`], it is never cancelled, and a call
/// that fails makes a fault, too.
pub async fn inject_later(incus: &Incus, clock: &Clock, plan: &Plan, stage: &Stage) -> Injected {
    let called = clock.at();
    let trouble = break_all(incus, &stage.kind, &stage.targets, &plan.undo).await;
    Injected {
        called,
        returned: clock.at(),
        trouble,
        evidence: None,
    }
}

/// As [`super::seen`], of a stage.
pub async fn seen_later(incus: &Incus, plan: &Plan, stage: &Stage) -> Option<String> {
    all_seen(incus, &stage.kind, &stage.targets, &plan.undo).await
}

#[cfg(test)]
mod tests {
    use super::super::Undo;
    use super::*;
    use crate::fault::Unit;
    use crate::pulse::Protocol;

    fn target(name: &str) -> Target {
        Target {
            instance: InstanceName::new(name).unwrap(),
            init_pid: 7,
        }
    }

    fn holding(unit: &str, names: &[&str]) -> Plan {
        let unit = Unit::new(unit).unwrap();
        let start = |name: &&str| UndoStep::StartUnit {
            target: target(name),
            unit: unit.clone(),
            invocation: None,
        };
        let answers = |name: &&str| UndoStep::Answers {
            pulse: Pulse {
                name: (*name).to_owned(),
                address: "198.18.0.21:6379".parse().unwrap(),
                protocol: Protocol::Redis,
                from: None,
            },
        };
        let steps = names.iter().rev().map(start);
        Plan {
            system: "s".to_owned(),
            kind: Kind::Hold(unit.clone()),
            targets: names.iter().map(|name| target(name)).collect(),
            later: Vec::new(),
            ttl_s: 60,
            undo: Undo {
                steps: steps.chain(names.iter().map(answers)).collect(),
            },
            notes: vec![format!("{unit} restarts")],
        }
    }

    fn staged() -> Plan {
        let mut plan = holding("watcher", &["b", "c"]);
        plan.append(holding("server", &["a", "b"]));
        plan
    }

    #[test]
    fn what_is_broken_last_is_mended_first_and_answers_are_asked_for_at_the_end() {
        let plan = staged();
        let steps: Vec<String> = plan.undo.steps.iter().map(ToString::to_string).collect();
        let expected = [
            "start server.service in b",
            "start server.service in a",
            "start watcher.service in c",
            "start watcher.service in b",
            "b answers its protocol",
            "c answers its protocol",
            "a answers its protocol",
            "b answers its protocol",
        ];
        assert_eq!(steps, expected);
        assert_eq!(plan.notes.len(), 2);
    }

    #[test]
    fn a_plan_with_stages_names_each_instance_once_and_is_plain_data() {
        let plan = staged();
        let names: Vec<String> = plan.instances().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["b", "c", "a"]);
        assert_eq!(
            plan.told(),
            "hold watcher.service in b, c, then hold server.service in a, b"
        );
        assert_eq!(
            plan.kinds(),
            "hold:watcher.service, then hold:server.service"
        );
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
        // A record that an older version wrote has no stages.
        let older = serde_json::to_string(&holding("server", &["a"])).unwrap();
        assert!(!older.contains("later"), "{older}");
        assert!(
            serde_json::from_str::<Plan>(&older)
                .unwrap()
                .later
                .is_empty()
        );
    }

    #[test]
    fn a_fault_is_proven_only_when_every_stage_is() {
        let evidence = || {
            Some(Evidence {
                at: At(1),
                target: "a is silent".to_owned(),
                control: "b answers".to_owned(),
                host: None,
            })
        };
        let stage = |evidence| Injected {
            called: At(1),
            returned: At(2),
            trouble: None,
            evidence,
        };
        let fault = |plan: Plan, first, later| Fault {
            plan,
            called: At(0),
            returned: At(1),
            trouble: None,
            evidence: first,
            later,
        };
        let one = || holding("server", &["a"]);
        assert!(fault(one(), evidence(), Vec::new()).is_proven());
        assert!(!fault(one(), None, Vec::new()).is_proven());
        assert!(fault(staged(), evidence(), vec![stage(evidence())]).is_proven());
        assert!(!fault(staged(), evidence(), Vec::new()).is_proven());
        assert!(!fault(staged(), evidence(), vec![stage(None)]).is_proven());
        assert!(!fault(staged(), None, vec![stage(evidence())]).is_proven());
        let mut failed = fault(staged(), evidence(), vec![stage(None)]);
        assert_eq!(failed.first_trouble(), None);
        failed.later[0].trouble = Some("busy".to_owned());
        assert_eq!(failed.first_trouble().map(String::as_str), Some("busy"));
    }
}
