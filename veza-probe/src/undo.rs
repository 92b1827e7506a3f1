//! What was broken is mended, whatever happens to the tool that broke it.
//!
//! ```text
//! lock ─► record ─► watchdog armed ─► Incus keys ─► inject      (a check that dies here or later
//! lock ◄─ record ◄─ watchdog goes ◄── Incus keys ◄─ evidence     is healed by its watchdog)
//! ```
//! The watchdog is armed before the keys are set, so that a check that dies between two of them
//! leaves none. Record and key each hold the whole undo: with one of them [`recover`] mends, also
//! from another machine, after what no watchdog survives (its cgroup, its host).

mod state;
mod record;
mod permission;
mod timer;
mod lock;
mod keys;
mod mend;
mod watchdog;
mod recover;

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;

use crate::clock::{At, Clock};
use crate::command::Command;
use crate::fault::{HealedStep, Plan};
use crate::incus::{Incus, Instance};
use crate::instance::InstanceName;

pub use keys::FAULT_KEY;
pub use permission::{DRILL_KEY, HALT_KEY, confirmed, halted, is_lab, permitted};
pub use record::{Chore, Mended, Record};
pub use recover::{End, Found, Recovered, Unrecovered, Wanted, finish_chores, recover};
pub use state::State;
pub use timer::{TIMER_KEY, timer_ran, watched};
pub use watchdog::{Leash, WATCHDOG_WORD, stand_watch};

use lock::Locks;

/// Why nothing may be broken now. Nothing was touched, or what was (a record, a key) is gone again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// A stable word for the reason.
    pub reason_id: &'static str,
    /// The reason in one sentence.
    pub reason: String,
    /// What a person does next.
    pub next: String,
}

impl Refusal {
    fn new(reason_id: &'static str, reason: impl Into<String>, next: impl Into<String>) -> Refusal {
        let (reason, next) = (reason.into(), next.into());
        Refusal {
            reason_id,
            reason,
            next,
        }
    }

    /// Whether something is not there that would undo a fault (exit code 3), rather than somebody or
    /// something having said no.
    pub fn is_missing_tool(&self) -> bool {
        self.reason_id == timer::NO_HOST_TIMER
    }
}

/// Who is about to break something, and what belongs together.
pub struct Intent<'a> {
    /// The check, by its program's name: its `--recover` knows its chores.
    pub check: &'a str,
    /// This run's own name, from [`run_id`].
    pub run: &'a str,
    /// What will be broken.
    pub plan: &'a Plan,
    /// Every instance of the system, the targets among them.
    pub members: Vec<InstanceName>,
    /// What only the check's own program can clean up.
    pub chores: Vec<Chore>,
    /// How long the watchdog waits for a word before the fault, in seconds.
    pub warm_up: Duration,
}

/// A name that no other run has: when it began, and 32 random bits.
pub fn run_id(clock: &Clock) -> String {
    let began = clock.wall(At(0)).strftime("%Y%m%dT%H%M%SZ").to_string();
    let random = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    let random = random.get(..8).unwrap_or("00000000");
    format!("{began}-{random}")
}

/// Refuses when an earlier drill on the same system was not undone, or left a record that nobody can
/// read: asked before the baseline, which would only call the system unhealthy.
///
/// # Errors
/// [`Refusal`], with the command that mends it.
pub fn clear_of_earlier_faults(
    state: &State,
    incus: &Incus,
    instances: &[Instance],
    system: &str,
    check: &str,
) -> Result<(), Refusal> {
    let project = incus.project();
    let command = record::recover_command(check, incus.place(), project);
    for entry in state.records()? {
        let record = match entry.record {
            Ok(record) => record,
            Err(words) => {
                let reason = format!(
                    "{} can't be read ({words}): a fault may still be in place",
                    entry.path.display()
                );
                return Err(Refusal::new("record-unreadable", reason, command));
            }
        };
        let here = record.place.is_same_server(incus.place());
        let ours = record.system == system && record.project == project && here;
        if ours && !record.undo.steps.is_empty() {
            let reason = format!(
                "the drill {} of {} broke this system ({}) and was not undone, or is still under way",
                record.run,
                record.made_at,
                record.plan_told()
            );
            return Err(Refusal::new("fault-on-record", reason, command));
        }
    }
    match keys::of_system(instances, system) {
        None => Ok(()),
        Some((instance, words)) => {
            let reason = format!("{instance} carries {FAULT_KEY} of {words}");
            Err(Refusal::new("fault-key-there", reason, command))
        }
    }
}

/// What has been made sure of before a fault, and is given back after it. Dropping it without
/// [`Journal::close`] makes the watchdog heal.
pub struct Journal {
    incus: Incus,
    state: State,
    record: Record,
    leash: Leash,
    /// Held until the end; the watchdog holds the same locks.
    _locks: Locks,
    keys_set: bool,
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.leash.let_go();
    }
}

impl Journal {
    /// Takes the locks, writes the record, and starts the watchdog (`watchdog` is our own program with
    /// the arguments that make it one), which has answered when this returns.
    ///
    /// # Errors
    /// [`Refusal`]; nothing is left behind then.
    pub async fn open(
        incus: &Incus,
        clock: &Clock,
        state: &State,
        intent: Intent<'_>,
        watchdog: Command,
        leash: &Leash,
    ) -> Result<Journal, Refusal> {
        let record = Record::new(incus, clock, &intent);
        let locks = Locks::take(state, &record)?;
        state.write(&record)?;
        let patience = intent.warm_up + watchdog::BEFORE_FAULT;
        match leash.arm(watchdog, &record, &locks, patience).await {
            Ok(owner) => Ok(Journal {
                incus: incus.clone(),
                state: state.clone(),
                record: Record {
                    watchdog: Some(owner),
                    ..record
                },
                leash: leash.clone(),
                _locks: locks,
                keys_set: false,
            }),
            Err(words) => {
                // Nothing was broken: a record that stays would only refuse the next run.
                let _ = state.remove(&record);
                let reason = format!("the watchdog did not start: {words}");
                Err(Refusal::new("watchdog-not-armed", reason, "run it again"))
            }
        }
    }

    /// The run's name.
    pub fn run(&self) -> &str {
        &self.record.run
    }

    /// Sets the keys: the undo on every target, a claim on every other member. All or none.
    ///
    /// # Errors
    /// [`Refusal`]: a member carries the key of another run, or Incus refused; no key of ours is left
    /// where that could be seen to.
    pub async fn set_keys(&mut self) -> Result<(), Refusal> {
        if self.record.undo.steps.is_empty() {
            return Ok(());
        }
        self.keys_set = true;
        keys::set(&self.incus, &self.record).await
    }

    /// Tells the watchdog that the fault comes now, and how long it may stay.
    ///
    /// # Errors
    /// [`Refusal`] when there is no watchdog any more.
    pub async fn breaking(&self, ttl: Duration) -> Result<(), Refusal> {
        let told = self.leash.within(ttl).await;
        told.map_err(|words| Refusal::new("watchdog-not-armed", words, "run it again"))
    }

    /// Tells the watchdog that healing has begun and how long it may take.
    pub async fn healing(&self, limit: Duration) {
        // A watchdog that is gone changes nothing about healing here.
        let _ = self.leash.within(limit).await;
    }

    /// After evidence that the fault is gone: takes the keys away and lets the record hold no more
    /// than the chores.
    pub async fn undone(&mut self, clock: &Clock, rest: Duration) -> Vec<HealedStep> {
        self.leash.undone(rest).await;
        let mut steps = Vec::new();
        if self.keys_set {
            let began = clock.at();
            let removed = keys::remove(&self.incus, clock, &self.record).await;
            steps.push(step(
                clock,
                format!("remove the key {FAULT_KEY}"),
                began,
                removed,
            ));
        }
        if steps.iter().all(|step| step.done.is_some()) {
            self.record.undo.steps.clear();
            let began = clock.at();
            let written = self.state.write(&self.record);
            if let Err(refusal) = written {
                let words = Err(refusal.reason);
                steps.push(step(clock, "rewrite the record".to_owned(), began, words));
            }
        }
        steps
    }

    /// Ends it once everything is undone, and leaves the chores on record: the next act of the same run writes its
    /// own record in this one's place, and [`finish_chores`] does them after the last one.
    pub async fn hand_on(mut self) {
        // Where nothing was broken, no heal has taken the steps out.
        if !self.record.undo.steps.is_empty() {
            self.record.undo.steps.clear();
            // One that stays as it was is undone by `--recover`, which finds everything as it should be.
            let _ = self.state.write(&self.record);
        }
        self.leash.healed().await;
    }

    /// Ends it: with everything `undone` the record goes and the watchdog, too; otherwise the
    /// watchdog is left to heal, and its answer is waited for.
    ///
    /// # Errors
    /// What the watchdog could not undo either, or why the record stays.
    pub async fn close(self, undone: bool) -> Result<(), Mended> {
        if !undone {
            self.leash.let_go();
            return match self.leash.outcome().await {
                Some(outcome) if outcome.undone => Ok(()),
                Some(outcome) => Err(outcome),
                None => Err(Mended::silent()),
            };
        }
        let removed = self.state.remove(&self.record);
        self.leash.healed().await;
        removed.map_err(|refusal| Mended {
            undone: false,
            words: refusal.reason,
            ..Mended::silent()
        })
    }
}

fn step(clock: &Clock, step: String, began: At, done: Result<String, String>) -> HealedStep {
    let (done, words) = match done {
        Ok(words) => (Some(clock.at()), words),
        Err(words) => (None, words),
    };
    HealedStep {
        step,
        began,
        done,
        words,
    }
}

/// Runs a part of a drill; a panic becomes words, so that healing comes next and not the end.
///
/// # Errors
/// The words of the panic.
pub async fn guarded<T>(part: impl Future<Output = T>) -> Result<T, String> {
    // What a panicking part leaves half done is only read for the report.
    AssertUnwindSafe(part)
        .catch_unwind()
        .await
        .map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            format!("panic: {}", text.unwrap_or("without words"))
        })
}

/// A panic that ended a check, and what its watchdog came to.
#[derive(Clone, Debug)]
pub struct Bug {
    /// The words of the panic.
    pub words: String,
    /// What the watchdog did; none when nothing was broken.
    pub mended: Option<Mended>,
}

impl Bug {
    /// Whether nothing is broken any more.
    pub fn undone(&self) -> bool {
        self.mended.as_ref().is_none_or(|mended| mended.undone)
    }
}

/// Runs all of a check. A panic that reaches its end makes the watchdog heal, and is told when it has.
///
/// # Errors
/// The panic.
pub async fn to_the_end<T>(leash: &Leash, run: impl Future<Output = T>) -> Result<T, Bug> {
    match guarded(run).await {
        Ok(done) => Ok(done),
        Err(words) => {
            leash.let_go();
            let mended = leash.outcome().await;
            Err(Bug { words, mended })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_words() {
        let fails = async {
            if std::env::args().count() > 0 {
                panic!("number {}", 7);
            }
        };
        assert_eq!(guarded(fails).await, Err("panic: number 7".to_owned()));
        assert_eq!(guarded(async { 7 }).await, Ok(7));
    }

    #[test]
    fn no_two_runs_have_one_name() {
        let clock = Clock::start();
        let (one, two) = (run_id(&clock), run_id(&clock));
        assert_ne!(one, two);
        assert!(one.len() == 25 && one.get(8..9) == Some("T"), "{one}");
    }
}
