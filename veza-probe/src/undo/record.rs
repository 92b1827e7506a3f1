//! The record of a fault: everything that is needed to undo it, without secrets.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Intent;
use crate::clock::Clock;
use crate::fault::{Kind, Stage, Undo, kinds};
use crate::incus::{Incus, Place};
use crate::instance::InstanceName;

/// The name and version of a record.
pub const SCHEMA: &str = "veza-undo/1";

/// What only one program can clean up, because it needs a client's credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chore {
    /// What it is, in the program's own words: `drop-schema`.
    pub name: String,
    /// What it is about, for the program that knows the chore.
    pub about: serde_json::Value,
}

/// A fault, with all that undoes it. The value of the targets' Incus key is the same record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: String,
    /// The run's name, and that of its file.
    pub run: String,
    /// The program that broke it, and that knows the chores.
    pub check: String,
    /// The system under test.
    pub system: String,
    /// Where the Incus is that the run spoke to.
    pub place: Place,
    /// The Incus project.
    pub project: String,
    /// How it was broken.
    pub kind: Kind,
    /// What was broken, sooner or later.
    pub targets: Vec<InstanceName>,
    /// What was to be broken later, beside `kind`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub later: Vec<Stage>,
    /// Every instance of the system, the targets among them.
    pub members: Vec<InstanceName>,
    /// What undoes it.
    pub undo: Undo,
    /// What is to be cleaned up beside.
    pub chores: Vec<Chore>,
    /// When the record was made, RFC 3339, UTC.
    pub made_at: String,
    /// When the fault should be over by, RFC 3339, UTC; afterwards anyone may heal it.
    pub expires: String,
    /// Where it was made, and by which process.
    pub owner: Owner,
    /// The watchdog; none before it has answered.
    pub watchdog: Option<Owner>,
    /// What came of healing without the check; none while that has not happened.
    pub outcome: Option<Mended>,
}

/// A process, so that it is not taken for a later one with the same number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The host's name.
    pub host: String,
    /// Its process id.
    pub pid: u32,
    /// When it was started, in clock ticks since the boot.
    pub start_ticks: u64,
    /// The boot of the host that id and ticks count in.
    pub boot_id: String,
}

/// What healing without the check came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mended {
    /// Who healed: `watchdog` or `recover`.
    pub by: String,
    /// Why it had to.
    pub why: String,
    /// Whether everything is as it was found.
    pub undone: bool,
    /// What was done, or what was not.
    pub words: String,
    /// When, RFC 3339, UTC.
    pub at: String,
}

impl Mended {
    /// The outcome of a watchdog that did not tell any.
    pub fn silent() -> Mended {
        Mended {
            by: "watchdog".to_owned(),
            why: "the check let it go".to_owned(),
            undone: false,
            words: "the watchdog did not say what came of it".to_owned(),
            at: String::new(),
        }
    }
}

impl Record {
    /// The record of a fault that is about to be made.
    pub(super) fn new(incus: &Incus, clock: &Clock, intent: &Intent<'_>) -> Record {
        let plan = intent.plan;
        let now = clock.at();
        let lifetime = intent.warm_up + Duration::from_secs(plan.ttl_s);
        Record {
            schema: SCHEMA.to_owned(),
            run: intent.run.to_owned(),
            check: intent.check.to_owned(),
            system: plan.system.clone(),
            place: incus.place().clone(),
            project: incus.project().to_owned(),
            kind: plan.kind.clone(),
            targets: plan.instances(),
            later: plan.later.clone(),
            members: intent.members.clone(),
            undo: plan.undo.clone(),
            chores: intent.chores.clone(),
            made_at: clock.wall(now).to_string(),
            expires: clock.wall(now.plus(lifetime)).to_string(),
            owner: Owner::this_process(),
            watchdog: None,
            outcome: None,
        }
    }

    /// The command that undoes it, of the program that broke it.
    pub fn recover_command(&self) -> String {
        recover_command(&self.check, &self.place, &self.project)
    }

    /// What it broke, in words.
    pub fn plan_told(&self) -> String {
        let targets: Vec<&str> = self.targets.iter().map(InstanceName::as_str).collect();
        format!("{} {}", kinds(&self.kind, &self.later), targets.join(", "))
    }

    /// The members that are not broken: they carry a claim.
    pub(super) fn others(&self) -> impl Iterator<Item = &InstanceName> {
        self.members.iter().filter(|m| !self.targets.contains(m))
    }
}

/// The command that undoes what a program broke in a project.
pub(super) fn recover_command(check: &str, place: &Place, project: &str) -> String {
    format!("{check}{} --project {project} --recover", place.flag())
}

impl Owner {
    pub(super) fn this_process() -> Owner {
        let pid = std::process::id();
        Owner {
            host: line("/proc/sys/kernel/hostname"),
            pid,
            start_ticks: start_ticks(pid).unwrap_or(0),
            boot_id: line(BOOT_ID),
        }
    }

    /// Whether this is that host, since that boot.
    pub(super) fn is_here(&self) -> bool {
        line(BOOT_ID) == self.boot_id
    }

    /// Whether the process still runs, as far as can be seen from here.
    pub(super) fn lives(&self) -> bool {
        self.is_here() && start_ticks(self.pid) == Some(self.start_ticks)
    }
}

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

fn line(path: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.trim().to_owned()
}

/// When a process was started; none when there is none, or only its remains (`Z`). Fields 3 and 22 of
/// its `stat`, counted after the name, which may hold anything (`man 5 proc_pid_stat`).
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_whitespace();
    let state = fields.next()?;
    let ticks = fields.nth(18)?;
    (state != "Z").then(|| ticks.parse().ok())?
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::fault::{Target, UndoStep};

    pub(in crate::undo) fn record(run: &str) -> Record {
        let name = |text: &str| InstanceName::new(text).unwrap();
        let target = Target {
            instance: name("pg-a"),
            init_pid: 7,
        };
        Record {
            schema: SCHEMA.to_owned(),
            run: run.to_owned(),
            check: "pg-failover-check".to_owned(),
            system: "formation default/0 in project p".to_owned(),
            place: Place::Socket("/nowhere/unix.socket".into()),
            project: "p".to_owned(),
            kind: Kind::Stop,
            targets: vec![name("pg-a")],
            later: Vec::new(),
            members: vec![name("pg-a"), name("pg-b"), name("pg-m")],
            undo: Undo {
                steps: vec![UndoStep::Start { target }],
            },
            chores: vec![Chore {
                name: "drop-schema".to_owned(),
                about: serde_json::json!({ "schema": "veza_drill_1" }),
            }],
            made_at: "2026-01-01T00:00:00Z".to_owned(),
            expires: "2026-01-01T00:02:00Z".to_owned(),
            owner: Owner {
                host: "h".to_owned(),
                pid: 1,
                start_ticks: 1,
                boot_id: "b".to_owned(),
            },
            watchdog: None,
            outcome: None,
        }
    }

    #[test]
    fn a_record_survives_the_way_through_a_key() {
        let record = record("run-1");
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        let others: Vec<_> = record.others().map(InstanceName::as_str).collect();
        assert_eq!(others, ["pg-b", "pg-m"]);
    }

    #[test]
    fn a_process_is_not_taken_for_a_later_one() {
        let mut owner = Owner::this_process();
        assert!(owner.is_here() && owner.lives());
        owner.start_ticks += 1;
        assert!(!owner.lives(), "a later process with its number");
        owner = Owner::this_process();
        owner.boot_id = "another".to_owned();
        assert!(!owner.is_here() && !owner.lives());
    }
}
