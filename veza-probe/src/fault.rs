//! What is broken, as plain data, and the steps that undo it.
//!
//! A [`Plan`] says what will be broken; its [`Undo`] is known before anything is. One function,
//! [`heal`], serves whoever has to mend: the check itself, its watchdog, a later `--recover`.

mod kind;
mod systemd;
mod stop;
mod freeze;
mod partition;
mod kill;
mod hold;
mod kill_restart;
mod stage;

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clock::{self, At, Clock};
use crate::incus::{Device, Error, Incus, Instance, Status};
use crate::instance::InstanceName;
use crate::pulse::Pulse;

pub use kind::{InvalidUnit, Kind, Unit, UnknownKind, WORDS};
pub(crate) use stage::kinds;
pub use stage::{Injected, Stage, inject_later, prepare_later, seen_later};

/// How often a step of healing is tried again.
const RETRY_EVERY: Duration = Duration::from_millis(250);

/// How long one sign of life may take.
const PULSE_LIMIT: Duration = Duration::from_millis(500);

/// An instance to break, as it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Target {
    /// The instance.
    pub instance: InstanceName,
    /// Its init process before the fault, as the host sees it: a new start has another one.
    pub init_pid: i64,
}

/// What will be broken. Data only: it can be written down before the fault and read by whoever has
/// to undo it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// The system that the targets belong to, for people.
    pub system: String,
    /// How they are broken.
    pub kind: Kind,
    /// What is broken; running, all of them.
    pub targets: Vec<Target>,
    /// What is broken later, one after the other, while all before stays broken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub later: Vec<Stage>,
    /// The longest that the fault may stay before whoever watches over the check heals it, in
    /// seconds.
    pub ttl_s: u64,
    /// The steps that undo it.
    #[serde(default)]
    pub undo: Undo,
    /// What a person should know about it, as it was found: restarts that would hide the fault.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// One step of undoing. A closed list, so that everyone who heals knows every step; each says what
/// was found, and is put back exactly so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "step")]
pub enum UndoStep {
    /// Start an instance that was running before.
    Start {
        /// The instance, as it was found.
        target: Target,
    },
    /// Let an instance go on that was running before.
    Unfreeze {
        /// The instance, as it was found.
        target: Target,
    },
    /// Give an instance's own network device back.
    SetDevice {
        /// The instance, as it was found.
        target: Target,
        /// The device's name, such as `eth0`.
        device: String,
        /// All its options, as they were found.
        found: Device,
    },
    /// Set an instance's own config key back, or remove it.
    SetKey {
        /// The instance, as it was found.
        target: Target,
        /// The key.
        key: String,
        /// Its value as it was found; none when it was not set.
        found: Option<String>,
        /// Its value while the fault is in.
        during: String,
    },
    /// Remove a unit's runtime drop-in.
    RemoveDropIn {
        /// The instance, as it was found.
        target: Target,
        /// The unit.
        unit: Unit,
    },
    /// Start a unit that was active before.
    StartUnit {
        /// The instance, as it was found.
        target: Target,
        /// The unit.
        unit: Unit,
        /// What systemd called its run before the fault (`InvocationID`); none where any run will
        /// do, as for a unit that only depended on the broken one.
        invocation: Option<String>,
    },
    /// Wait until a server answers its own protocol.
    Answers {
        /// The server.
        pulse: Pulse,
    },
}

impl fmt::Display for UndoStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UndoStep::Start { target } => write!(f, "start {}", target.instance),
            UndoStep::Unfreeze { target } => write!(f, "unfreeze {}", target.instance),
            UndoStep::SetDevice { target, device, .. } => {
                write!(f, "give {} its device {device} back", target.instance)
            }
            UndoStep::SetKey { target, key, .. } => {
                write!(f, "set {key} of {} back", target.instance)
            }
            UndoStep::RemoveDropIn { target, unit } => {
                write!(f, "remove the drop-in of {unit} in {}", target.instance)
            }
            UndoStep::StartUnit { target, unit, .. } => {
                write!(f, "start {unit} in {}", target.instance)
            }
            UndoStep::Answers { pulse } => write!(f, "{} answers its protocol", pulse.name),
        }
    }
}

/// The steps that undo a fault, in the order in which they are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Undo {
    /// The steps.
    pub steps: Vec<UndoStep>,
}

impl Undo {
    /// The steps that change something, in words.
    pub fn told(&self) -> String {
        let changes = |step: &&UndoStep| !matches!(step, UndoStep::Answers { .. });
        let told: Vec<String> = self
            .steps
            .iter()
            .filter(changes)
            .map(ToString::to_string)
            .collect();
        if told.is_empty() {
            "nothing to undo".to_owned()
        } else {
            told.join(", ")
        }
    }
}

impl Plan {
    /// What is broken, in words: `stop pgaf-primary`.
    pub fn told(&self) -> String {
        let later = self.later.iter().map(|stage| (&stage.kind, &stage.targets));
        let all = [(&self.kind, &self.targets)].into_iter().chain(later);
        let told: Vec<String> = all.map(|(kind, targets)| told(kind, targets)).collect();
        told.join(", then ")
    }
}

fn told(kind: &Kind, targets: &[Target]) -> String {
    let names: Vec<&str> = targets.iter().map(|t| t.instance.as_str()).collect();
    match kind.unit() {
        _ if names.is_empty() => "none".to_owned(),
        Some(unit) => format!("{} {unit} in {}", kind.word(), names.join(", ")),
        None => format!("{kind} {}", names.join(", ")),
    }
}

/// Why a fault can't be made, or could not be undone: found before anything is touched.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// A target is not running.
    #[error("{instance} is {status}, not running: only what runs can be broken and put back")]
    NotRunning {
        /// The instance.
        instance: InstanceName,
        /// What it is doing.
        status: Status,
    },
    /// A network device that would come back with another MAC or address.
    #[error(
        "{device} of {instance} has no hwaddr and ipv4.address of its own: masked and given back, it \
         would have other ones"
    )]
    UnpinnedDevice {
        /// The instance.
        instance: InstanceName,
        /// The device.
        device: String,
        /// The command that pins it.
        command: String,
    },
    /// There is no network device to take away.
    #[error("{instance} has no network device that could be masked")]
    NoDevice {
        /// The instance.
        instance: InstanceName,
    },
    /// The unit is not there, or not active.
    #[error("{unit} in {instance} is {state}: only an active unit can be broken and put back")]
    UnitNotActive {
        /// The instance.
        instance: InstanceName,
        /// The unit.
        unit: Unit,
        /// What systemd says of it.
        state: String,
    },
    /// A drop-in of an earlier drill is still there.
    #[error("{unit} in {instance} still has the drop-in of an earlier drill ({path})")]
    DropInThere {
        /// The instance.
        instance: InstanceName,
        /// The unit.
        unit: Unit,
        /// Where it is.
        path: String,
    },
    /// systemd in the instance could not be asked.
    #[error("asking systemd in {instance} for {unit}: {words}")]
    Systemd {
        /// The instance.
        instance: InstanceName,
        /// The unit.
        unit: Unit,
        /// What came back.
        words: String,
    },
    /// Incus did not say.
    #[error(transparent)]
    Incus(#[from] Error),
}

impl Unfit {
    /// A stable word for the reason.
    pub fn reason_id(&self) -> &'static str {
        match self {
            Unfit::NotRunning { .. } => "instance-not-running",
            Unfit::UnpinnedDevice { .. } => "device-not-pinned",
            Unfit::NoDevice { .. } => "no-device",
            Unfit::UnitNotActive { .. } => "unit-not-active",
            Unfit::DropInThere { .. } => "drop-in-there",
            Unfit::Systemd { .. } => "systemd-not-usable",
            Unfit::Incus(_) => "incus-refused",
        }
    }

    /// The next command.
    pub fn next(&self, project: &str) -> String {
        match self {
            Unfit::NotRunning { instance, .. } => {
                format!("incus --project {project} info {instance}")
            }
            Unfit::UnpinnedDevice { command, .. } => command.clone(),
            Unfit::NoDevice { instance } => {
                format!("incus --project {project} config show --expanded {instance}")
            }
            Unfit::UnitNotActive { instance, unit, .. } | Unfit::Systemd { instance, unit, .. } => {
                format!("incus --project {project} exec {instance} -- systemctl status {unit}")
            }
            Unfit::DropInThere {
                instance,
                unit,
                path,
            } => format!(
                "incus --project {project} exec {instance} -- sh -c 'rm {path}; systemctl \
                 daemon-reload; systemctl start {unit}'"
            ),
            Unfit::Incus(_) => "incus info".to_owned(),
        }
    }
}

/// Makes a plan: reads what the fault will change, so that it can be put back exactly so, and refuses
/// what could not be. Nothing is touched.
///
/// # Errors
/// [`Unfit`].
pub async fn prepare(
    incus: &Incus,
    system: &str,
    kind: &Kind,
    targets: &[InstanceName],
    pulses: &[Pulse],
) -> Result<Plan, Unfit> {
    let mut plan = Plan {
        system: system.to_owned(),
        kind: kind.clone(),
        targets: Vec::new(),
        later: Vec::new(),
        ttl_s: 0,
        undo: Undo::default(),
        notes: Vec::new(),
    };
    if !kind.breaks() {
        return Ok(plan);
    }
    // The last one broken is mended first.
    for name in targets.iter().rev() {
        let found = incus.instance(name).await?;
        if found.status != Status::Running {
            return Err(Unfit::NotRunning {
                instance: name.clone(),
                status: found.status,
            });
        }
        let target = Target {
            instance: name.clone(),
            init_pid: found.init_pid,
        };
        let steps = steps(incus, kind, &target, &found, &mut plan.notes).await?;
        plan.undo.steps.extend(steps);
        plan.targets.insert(0, target);
    }
    let answers = pulses
        .iter()
        .cloned()
        .map(|pulse| UndoStep::Answers { pulse });
    plan.undo.steps.extend(answers);
    Ok(plan)
}

async fn steps(
    incus: &Incus,
    kind: &Kind,
    target: &Target,
    found: &Instance,
    notes: &mut Vec<String>,
) -> Result<Vec<UndoStep>, Unfit> {
    match kind {
        Kind::None => Ok(Vec::new()),
        Kind::Stop => Ok(stop::steps(target, found, notes)),
        Kind::Freeze => Ok(freeze::steps(target)),
        Kind::Partition => partition::steps(incus.project(), target, found),
        Kind::Kill(unit) => kill::steps(incus, target, unit, notes).await,
        Kind::Hold(unit) => hold::steps(incus, target, unit, notes).await,
        Kind::KillRestart(unit) => kill_restart::steps(incus, target, unit, notes).await,
    }
}

/// A fault that was injected, wholly or in part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// What was broken later, as far as it came: an entry for each stage of the plan that was begun.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub later: Vec<Injected>,
}

/// Proof that a fault took hold: the target gives no protocol answer while a control member answers
/// over the same path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// When the control's answer was in: the second mark of the fault.
    pub at: At,
    /// What the target did not do.
    pub target: String,
    /// The member that did answer, and how.
    pub control: String,
    /// What Incus or the target's own systemd says of it.
    pub host: Option<String>,
}

/// Injects a fault: every target, one by one. Never cancelled by a signal: an injecting call that is
/// dropped could still break something after healing.
///
/// A call that fails makes a fault, too (in [`Fault::trouble`]): once something was asked for, only
/// healing knows that nothing is broken.
pub async fn inject(incus: &Incus, clock: &Clock, plan: &Plan) -> Fault {
    let called = clock.at();
    let trouble = break_all(incus, &plan.kind, &plan.targets, &plan.undo).await;
    Fault {
        plan: plan.clone(),
        called,
        returned: clock.at(),
        trouble,
        evidence: None,
        later: Vec::new(),
    }
}

/// Breaks every target, one by one; returns what the call said that failed.
async fn break_all(incus: &Incus, kind: &Kind, targets: &[Target], undo: &Undo) -> Option<String> {
    for target in targets {
        let done = match kind {
            Kind::None => Ok(()),
            Kind::Stop => stop::inject(incus, target, undo).await,
            Kind::Freeze => freeze::inject(incus, target).await,
            Kind::Partition => partition::inject(incus, target, undo).await,
            Kind::Kill(unit) => kill::inject(incus, target, unit).await,
            Kind::Hold(unit) => hold::inject(incus, target, unit).await,
            Kind::KillRestart(unit) => kill_restart::inject(incus, target, unit).await,
        };
        if let Err(error) = done {
            return Some(error.to_string());
        }
    }
    None
}

/// What Incus or the target's own systemd says of a fault that was injected: proof beside that of
/// the protocol. None when it says that nothing is broken, or nothing at all.
pub async fn seen(incus: &Incus, plan: &Plan) -> Option<String> {
    all_seen(incus, &plan.kind, &plan.targets, &plan.undo).await
}

async fn all_seen(incus: &Incus, kind: &Kind, targets: &[Target], undo: &Undo) -> Option<String> {
    let mut words = Vec::new();
    for target in targets {
        let seen = match kind {
            Kind::None => None,
            Kind::Stop => stop::seen(incus, target).await,
            Kind::Freeze => freeze::seen(incus, target).await,
            Kind::Partition => partition::seen(incus, target).await,
            Kind::Kill(unit) | Kind::Hold(unit) => systemd::seen_down(incus, target, unit).await,
            Kind::KillRestart(unit) => kill_restart::seen(incus, target, unit, undo).await,
        };
        words.push(seen?);
    }
    (!words.is_empty()).then(|| words.join("; "))
}

/// A step of healing, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Healed {
    /// Every step of the undo.
    pub steps: Vec<HealedStep>,
}

impl Healed {
    /// Whether every step was done: Incus shows the state that was found.
    pub fn undone(&self) -> bool {
        self.steps.iter().all(|s| s.done.is_some())
    }

    /// The steps that were not done, in words; empty when all were.
    pub fn trouble(&self) -> String {
        let missing = self.steps.iter().filter(|step| step.done.is_none());
        let told = missing.map(|step| format!("{}: {}", step.step, step.words));
        told.collect::<Vec<_>>().join("; ")
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
        let trouble = match attempt(incus, step).await {
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

async fn attempt(incus: &Incus, step: &UndoStep) -> Tried {
    match step {
        UndoStep::Start { target } => stop::undo(incus, target).await,
        UndoStep::Unfreeze { target } => freeze::undo(incus, target).await,
        UndoStep::SetDevice {
            target,
            device,
            found,
        } => partition::undo(incus, target, device, found).await,
        UndoStep::SetKey {
            target,
            key,
            found,
            during,
        } => stop::undo_key(incus, target, key, found.as_deref(), during).await,
        UndoStep::RemoveDropIn { target, unit } => {
            systemd::remove_drop_in(incus, target, unit).await
        }
        UndoStep::StartUnit {
            target,
            unit,
            invocation,
        } => systemd::start(incus, target, unit, invocation.as_deref()).await,
        UndoStep::Answers { pulse } => match pulse.ask_to_heal(incus, PULSE_LIMIT).await {
            Ok(words) => Ok(Progress::Done(words)),
            Err(words) => Ok(Progress::NotYet(words)),
        },
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
mod tests;
