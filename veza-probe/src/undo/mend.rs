//! Mending without the check: one function for its watchdog and for a later `--recover`.

use std::time::Duration;

use super::keys;
use super::record::{Chore, Mended, Record};
use super::state::State;
use crate::clock::{self, Clock};
use crate::fault::{self, Healed, HealedStep};
use crate::incus::Incus;

/// How long a chore is tried: a failover lies within, before which nobody takes its statements.
const CHORE_LIMIT: Duration = Duration::from_secs(60);
const RETRY_EVERY: Duration = Duration::from_millis(500);

/// Who mends, why, and for how long.
pub(super) struct Mender<'a, C> {
    pub(super) clock: &'a Clock,
    pub(super) state: &'a State,
    /// `watchdog` or `recover`.
    pub(super) by: &'a str,
    pub(super) why: String,
    pub(super) limit: Duration,
    /// The program that this is: only its own chores are done.
    pub(super) check: &'a str,
    pub(super) chores: &'a C,
}

impl<C: AsyncFn(&Chore) -> Result<String, String>> Mender<'_, C> {
    /// Undoes a record: its steps, its keys, its chores, then the record itself, which stays when
    /// something of that was not done.
    pub(super) async fn mend(&self, incus: &Incus, record: &Record) -> (Mended, Vec<HealedStep>) {
        let mut left = record.clone();
        let mut healed = self.steps(incus, record).await;
        let undone = healed.undone();
        let mut words = healed.trouble();
        if undone {
            left.undo.steps.clear();
            let (steps, chores) = self.chores(record).await;
            left.chores = chores;
            healed.steps.extend(steps);
            words = match left.chores.first() {
                None => "everything is as it was found".to_owned(),
                Some(chore) => format!(
                    "all of Incus is as it was found; what is left ({}) is done by: {}",
                    chore.name,
                    record.recover_command()
                ),
            };
        }
        let outcome = Mended {
            by: self.by.to_owned(),
            why: self.why.clone(),
            undone,
            words,
            at: self.clock.wall(self.clock.at()).to_string(),
        };
        left.outcome = Some(outcome.clone());
        (self.keep(record, &left, outcome), healed.steps)
    }

    async fn steps(&self, incus: &Incus, record: &Record) -> Healed {
        let mut healed = fault::heal(incus, self.clock, &record.undo, self.limit).await;
        if healed.undone() {
            let began = self.clock.at();
            let removed = keys::remove(incus, self.clock, record).await;
            let step = format!("remove the key {}", keys::FAULT_KEY);
            healed
                .steps
                .push(super::step(self.clock, step, began, removed));
        }
        healed
    }

    /// Does what only this program can do; returns what is left.
    async fn chores(&self, record: &Record) -> (Vec<HealedStep>, Vec<Chore>) {
        let (mut steps, mut left) = (Vec::new(), Vec::new());
        if record.check != self.check {
            return (steps, record.chores.clone());
        }
        for chore in &record.chores {
            let began = self.clock.at();
            let deadline = began.plus(CHORE_LIMIT);
            let done = loop {
                let done = (self.chores)(chore).await;
                if done.is_ok() || self.clock.at() >= deadline {
                    break done;
                }
                clock::sleep(RETRY_EVERY).await;
            };
            if done.is_err() {
                left.push(chore.clone());
            }
            steps.push(super::step(self.clock, chore.name.clone(), began, done));
        }
        (steps, left)
    }

    /// Removes the record of what is wholly done, and writes down what is not.
    fn keep(&self, record: &Record, left: &Record, mut outcome: Mended) -> Mended {
        let mut past = record.clone();
        past.outcome = Some(outcome.clone());
        self.state.remember(&past);
        let kept = if outcome.undone && left.chores.is_empty() {
            self.state.remove(record)
        } else {
            self.state.write(left)
        };
        if let Err(refusal) = kept {
            outcome.words = format!("{}; {}", outcome.words, refusal.reason);
        }
        outcome
    }
}
