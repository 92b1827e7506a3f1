//! What is broken later, on top of what is broken already: injected one after the other, each when its time has
//! come.

use std::time::Duration;

use super::injection::{EVIDENCE_LIMIT, LOOK_EVERY, look};
use super::{Check, Found, INJECT_LIMIT, Later, Watch};
use crate::clock::{self, Clock, Stop};
use crate::fault::{self, Fault, Injected, Stage};
use crate::story::Story;
use crate::undo::{self, Journal};

/// The stages of a fault that was injected and proven.
pub(super) struct Stages<'a, C: Check> {
    pub(super) clock: &'a Clock,
    pub(super) check: &'a C,
    pub(super) found: &'a Found<C>,
    pub(super) story: &'a Story,
    pub(super) journal: &'a Journal,
    /// The longest that all of it may stay.
    pub(super) limit: Duration,
}

impl<C: Check> Stages<'_, C> {
    /// Injects each when its time has come; returns whether everything was broken, and was seen to be. What
    /// stands in the way is in the fault.
    ///
    /// # Errors
    /// Why somebody forbade all drills meanwhile.
    pub(super) async fn inject(
        &self,
        fault: &mut Fault,
        watch: &mut C::Watch,
        stop: &mut Stop,
    ) -> Result<bool, String> {
        let stages = fault.plan.later.clone();
        for (later, stage) in self.check.later(self.found).iter().zip(&stages) {
            tokio::select! {
                () = watch.until_next(fault, self.limit, stop) => {}
                words = undo::halted(&self.found.site.incus) => return Err(words),
            }
            if stop.requested().is_some() {
                return Ok(false);
            }
            if self.clock.at() >= fault.called.plus(self.limit) {
                let limit_s = self.limit.as_secs_f64();
                let words = format!(
                    "the longest that a fault may stay ({limit_s} s) was over before {} was",
                    stage.kind
                );
                fault.trouble.get_or_insert(words);
                return Ok(false);
            }
            let names: Vec<&str> = stage.targets.iter().map(|t| t.instance.as_str()).collect();
            watch.note(format!(
                "fault: {} in {}, too",
                stage.kind,
                names.join(", ")
            ));
            // Never cancelled: an injecting call that is dropped could still break something after healing.
            let injected = self.inject_one(fault, later, stage).await;
            match (&injected.evidence, &injected.trouble) {
                (Some(evidence), _) => self.story.say(&format!(
                    "evidence: {}, while {}",
                    evidence.target, evidence.control
                )),
                (None, Some(trouble)) => self.story.say(&format!("the fault failed: {trouble}")),
                (None, None) => self.story.say("no evidence that the fault took hold"),
            }
            let proven = injected.evidence.is_some();
            fault.later.push(injected);
            if !proven {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn inject_one(&self, fault: &Fault, later: &Later, stage: &Stage) -> Injected {
        let (clock, incus, plan) = (self.clock, &self.found.site.incus, &fault.plan);
        // What the watchdog was told counts from the first stage on.
        let over = fault.called.plus(Duration::from_secs(plan.ttl_s));
        let left = || Duration::from_micros(over.us_since(clock.at()).try_into().unwrap_or(0));
        let gone = |refusal: undo::Refusal| Injected {
            called: clock.at(),
            returned: clock.at(),
            trouble: Some(refusal.reason),
            evidence: None,
        };
        if let Err(refusal) = self.journal.breaking(left() + INJECT_LIMIT).await {
            return gone(refusal);
        }
        let mut injected = fault::inject_later(incus, clock, plan, stage).await;
        if let Err(refusal) = self.journal.breaking(left()).await {
            injected.trouble.get_or_insert(refusal.reason);
            return injected;
        }
        let deadline = clock.at().plus(EVIDENCE_LIMIT);
        while injected.evidence.is_none() && clock.at() < deadline {
            injected.evidence = look(clock, &later.broken, &later.controls).await;
            clock::sleep(LOOK_EVERY).await;
        }
        if let Some(evidence) = &mut injected.evidence {
            evidence.host = fault::seen_later(incus, plan, stage).await;
        }
        injected
    }
}
