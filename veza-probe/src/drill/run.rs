//! One act of a check that breaks something, from the first look to the last report.

use super::acts::Acts;
use super::injection::{inject, journal};
use super::plan::{agreed, plan};
use super::reports::{self, interrupted};
use super::site::{Site, of_undo};
use super::stages::Stages;
use super::{Check, Found, HEAL_LIMIT, SoFar, Watch, broken};
use crate::clock::{Clock, Signal, Stop};
use crate::fault::{self, Fault, Healed, HealedStep, Kind, Plan};
use crate::report::{Folder, Report, Untouched, keep};
use crate::story::Story;
use crate::undo::{self, Chore, Journal, Leash, Mended, guarded};
use crate::verdict::Ended;

/// One act of a run.
pub(super) struct Run<'a, C> {
    pub(super) clock: Clock,
    pub(super) check: &'a C,
    pub(super) story: Story,
    pub(super) stop: Stop,
    pub(super) kept: Option<&'a Folder>,
    pub(super) leash: Leash,
    /// The acts before this one.
    pub(super) before: &'a Acts,
}

/// What an act came to, and the one that follows.
pub(super) struct Played<C> {
    pub(super) report: Report,
    pub(super) next: Option<C>,
}

impl<C> From<Report> for Played<C> {
    fn from(report: Report) -> Played<C> {
        Played { report, next: None }
    }
}

/// What is known before the fault.
struct Ready<C: Check> {
    found: Found<C>,
    plan: Plan,
    notes: Vec<String>,
}

/// What a run has done to the system, and whether a bug of ours ended it.
#[derive(Default)]
struct Done {
    /// Why nothing was broken after all.
    refused: Option<Untouched>,
    fault: Option<Fault>,
    healed: Option<Healed>,
    /// Whether the watchdog did what healing here could not.
    rescued: bool,
    /// Why somebody forbade all drills meanwhile.
    halted: Option<String>,
    bug: Option<String>,
}

impl<C: Check> Run<'_, C> {
    pub(super) async fn run(mut self, run: &str) -> Played<C> {
        let mut stop = self.stop.clone();
        let ready = tokio::select! {
            ready = self.look() => ready,
            signal = stop.wait() => Err(interrupted(signal).into()),
        };
        let mut ready = match ready {
            Ok(ready) => ready,
            Err(why) => return self.untouched(why).into(),
        };
        let about = (&ready.plan, run);
        let opened = journal(&self.clock, self.check, &ready.found, about, &self.leash);
        let journal = match opened.await {
            Ok(journal) => journal,
            Err(why) => return self.untouched(why).into(),
        };
        ready.notes.extend(self.finish_chores(&ready.found).await);
        let (clock, found) = (self.clock, &ready.found);
        let watch = self
            .check
            .start(&clock, found, run, &self.story, &mut self.stop);
        let watch = match watch.await {
            Ok(watch) => watch,
            Err(why) => {
                let _ = self.give_back(journal).await;
                return self.untouched(why).into();
            }
        };
        match self.stop.requested() {
            None if !self.check.drill().dry_run => self.drill(&ready, watch, journal).await,
            signal => {
                let report = self.without_fault(&ready, watch, journal, signal);
                report.await.into()
            }
        }
    }

    /// Ends a journal in which nothing is left to undo; where chores come last, their record stays until then.
    async fn give_back(&self, journal: Journal) -> Result<(), Mended> {
        if self.check.chores_last() {
            journal.hand_on().await;
            return Ok(());
        }
        journal.close(true).await
    }

    fn untouched(&self, why: Untouched) -> Report {
        reports::untouched(&self.clock, self.check, why)
    }

    async fn look(&self) -> Result<Ready<C>, Untouched> {
        let (clock, check, story) = (&self.clock, self.check, &self.story);
        let site = Site::find(check.drill()).await?;
        let targets = check.resolve(clock, &site).await?;
        let clear = undo::clear_of_earlier_faults(
            &site.state,
            &site.incus,
            &site.instances,
            &check.system(),
            C::NAME,
        );
        clear.map_err(|refusal| of_undo(&refusal))?;
        let baseline = check.measure(clock, &site, &targets, story).await?;
        let found = Found {
            site,
            targets,
            baseline,
        };
        let plan = plan(clock, check, &found).await?;
        agreed(clock, story, check, &found, &plan).await?;
        Ok(Ready {
            found,
            plan,
            notes: Vec::new(),
        })
    }

    /// Cleans up after earlier runs that were killed.
    async fn finish_chores(&self, found: &Found<C>) -> Vec<String> {
        let chores = async |chore: &Chore| self.check.chore(chore).await;
        undo::finish_chores(&found.site.state, &found.site.incus, (C::NAME, &chores)).await
    }

    /// A dry run, or a signal that came before the fault.
    async fn without_fault(
        &self,
        ready: &Ready<C>,
        watch: C::Watch,
        journal: Journal,
        signal: Option<Signal>,
    ) -> Report {
        let observation = watch.finish(&ready.found).await;
        let _ = self.give_back(journal).await;
        let judgement = match signal {
            Some(signal) => interrupted(signal),
            None => reports::planned(&ready.plan),
        };
        let notes = vec!["nothing was broken".to_owned()];
        let done = Done::default();
        let so_far = so_far(ready, &done, Some(&observation), notes);
        reports::assemble(&self.clock, self.check, &judgement, (&so_far, Vec::new()))
    }

    /// From the fault on there is no early return: whatever happens around the watch, it is healed.
    async fn drill(
        mut self,
        ready: &Ready<C>,
        mut watch: C::Watch,
        mut journal: Journal,
    ) -> Played<C> {
        let mut done = Done::default();
        let broken = guarded(self.break_and_watch(ready, &mut watch, &mut journal, &mut done));
        done.bug = broken.await.err();
        if let Some(why) = done.refused.take() {
            return self.refused(ready, watch, journal, why).await.into();
        }
        let provisional = guarded(async { watch.so_far() }).await.ok();
        let report = self.judged(ready, &done, provisional.as_ref(), Vec::new());
        let report = self.before.with(&self.clock, self.check, report);
        keep::save(self.kept, &report, &self.story);
        watch.note(format!("healing: {}", ready.plan.undo.told()));
        let mut healed = self.heal(ready, &journal).await;
        watch.joined();
        if healed.undone() {
            let rest = self.check.redundancy_target() + HEAL_LIMIT;
            healed.steps.extend(journal.undone(&self.clock, rest).await);
        }
        done.healed = Some(healed);
        let whole = guarded(self.watch_return(ready, &mut watch, &done)).await;
        done.bug = done.bug.or(whole.err());
        let observation = match guarded(watch.finish(&ready.found)).await {
            Ok(observation) => Some(observation),
            Err(bug) => {
                done.bug.get_or_insert(bug);
                None
            }
        };
        let mut notes = self.close(&mut done, journal).await;
        notes.extend(self.afterwards(ready, &done).await);
        Played {
            report: self.judged(ready, &done, observation.as_ref(), notes),
            next: self.next(ready, &done, observation.as_ref()),
        }
    }

    /// What follows an act that came to its end; nothing follows one that did not.
    fn next(
        &self,
        ready: &Ready<C>,
        done: &Done,
        observation: Option<&C::Observation>,
    ) -> Option<C> {
        let undone = done.healed.as_ref().is_some_and(Healed::undone);
        let went_well = undone && done.bug.is_none() && done.halted.is_none();
        let goes_on = went_well && self.stop.requested().is_none();
        let so_far = so_far(ready, done, observation, Vec::new());
        goes_on.then(|| self.check.next(&so_far)).flatten()
    }

    /// Nothing was broken after all: a key of another drill, or the watchdog had gone.
    async fn refused(
        &self,
        ready: &Ready<C>,
        watch: C::Watch,
        journal: Journal,
        why: Untouched,
    ) -> Report {
        watch.finish(&ready.found).await;
        // It takes keys away that were set before the refusal, and the record.
        let cleaned = journal.close(false).await;
        let mut report = self.untouched(why);
        report
            .notes
            .extend(cleaned.err().map(|outcome| outcome.words));
        report
    }

    async fn break_and_watch(
        &mut self,
        ready: &Ready<C>,
        watch: &mut C::Watch,
        journal: &mut Journal,
        done: &mut Done,
    ) {
        let (plan, found) = (&ready.plan, &ready.found);
        self.story.say(&format!("fault: {}", plan.told()));
        let injected = match inject(&self.clock, self.check, found, plan, journal).await {
            Ok(fault) => done.fault.insert(fault),
            Err(why) => {
                done.refused = Some(why);
                return;
            }
        };
        if plan.kind == Kind::Partition {
            watch.cut_off(found);
        }
        match (&injected.evidence, &injected.trouble) {
            (Some(evidence), _) => self.story.say(&format!(
                "evidence: {}, while {}",
                evidence.target, evidence.control
            )),
            (None, Some(trouble)) => self.story.say(&format!("the fault failed: {trouble}")),
            (None, None) if !plan.kind.breaks() => {}
            (None, None) => self.story.say("no evidence that the fault took hold"),
        }
        if injected.evidence.is_some() || !plan.kind.breaks() {
            let limit = self.check.drill().max_fault(self.check.rto_target());
            let stages = Stages {
                clock: &self.clock,
                check: self.check,
                found,
                story: &self.story,
                journal,
                limit,
            };
            match stages.inject(injected, watch, &mut self.stop).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(words) => {
                    done.halted = Some(words);
                    return;
                }
            }
            tokio::select! {
                () = watch.until_service_back(injected, limit, &mut self.stop) => {}
                words = undo::halted(&found.site.incus) => done.halted = Some(words),
            }
        }
    }

    /// Heals, whatever signal comes meanwhile; a person who is impatient is told how long it may take.
    async fn heal(&self, ready: &Ready<C>, journal: &Journal) -> Healed {
        let began = self.clock.at();
        journal.healing(2 * HEAL_LIMIT).await;
        let mut stop = self.stop.clone();
        let (incus, undo) = (&ready.found.site.incus, &ready.plan.undo);
        let heal = guarded(fault::heal(incus, &self.clock, undo, HEAL_LIMIT));
        tokio::pin!(heal);
        let healed = loop {
            tokio::select! {
                healed = &mut heal => break healed,
                () = stop.again() => {
                    let spent = self.clock.at().us_since(began) as f64 / 1e6;
                    self.story.say(&format!(
                        "healing goes on, for at most {:.0} s more; then this ends by itself",
                        (HEAL_LIMIT.as_secs_f64() - spent).max(0.0)
                    ));
                }
            }
        };
        healed.unwrap_or_else(|bug| Healed {
            steps: vec![HealedStep {
                step: "heal".to_owned(),
                began,
                done: None,
                words: bug,
            }],
        })
    }

    /// Redundancy is worth waiting for only when the drill goes on.
    async fn watch_return(&mut self, ready: &Ready<C>, watch: &mut C::Watch, done: &Done) {
        let healed = done.healed.as_ref();
        let began = healed.and_then(|h| h.steps.first()).map(|s| s.began);
        let undone = healed.is_some_and(Healed::undone) && ready.plan.kind.breaks();
        // Without its observer nothing more will be seen.
        let goes_on = done.bug.is_none() && done.halted.is_none() && watch.lost().is_none();
        if let Some(began) = began.filter(|_| undone && goes_on)
            && self.stop.requested().is_none()
        {
            let limit = self.check.redundancy_target();
            watch.until_redundant(began, limit, &mut self.stop).await;
        }
    }

    /// Gives back what the journal held; where something was not undone, the watchdog tries.
    async fn close(&self, done: &mut Done, journal: Journal) -> Vec<String> {
        let undone = done.healed.as_ref().is_some_and(Healed::undone);
        if !undone {
            self.story.say("not undone: the watchdog tries now");
        }
        let closed = match undone {
            true => self.give_back(journal).await,
            false => journal.close(false).await,
        };
        match closed {
            Ok(()) if undone => Vec::new(),
            Ok(()) => {
                done.rescued = true;
                vec!["the watchdog undid what healing here could not".to_owned()]
            }
            Err(outcome) => vec![format!("{}: {}", outcome.by, outcome.words)],
        }
    }

    /// What a check does at last, where the drill came to its end.
    async fn afterwards(&self, ready: &Ready<C>, done: &Done) -> Vec<String> {
        let came_through = done.bug.is_none() && self.stop.requested().is_none();
        if !ready.plan.kind.breaks() || !came_through {
            return Vec::new();
        }
        let afterwards = self
            .check
            .afterwards(&self.clock, &ready.found, &self.story);
        guarded(afterwards).await.unwrap_or_else(|bug| vec![bug])
    }

    fn judged(
        &self,
        ready: &Ready<C>,
        done: &Done,
        observation: Option<&C::Observation>,
        notes: Vec<String>,
    ) -> Report {
        let so_far = so_far(ready, done, observation, notes);
        let healed = done.healed.as_ref();
        let ended = Ended {
            target: broken(self.check, &ready.found),
            undone: healed.map(|healed| healed.undone() || done.rescued),
            undo_trouble: healed.map(Healed::trouble).unwrap_or_default(),
            look_now: reports::look_now(C::NAME, self.check.drill()),
            bug: done.bug.clone(),
            interrupted: self.stop.requested(),
            halted: done.halted.clone(),
        };
        let (gates, judgement) = self.check.judge(&so_far);
        let judgement = ended.judgement().unwrap_or(judgement);
        reports::assemble(&self.clock, self.check, &judgement, (&so_far, gates))
    }
}

fn so_far<'a, C: Check>(
    ready: &'a Ready<C>,
    done: &'a Done,
    observation: Option<&'a C::Observation>,
    notes: Vec<String>,
) -> SoFar<'a, C> {
    let kept = ready.plan.notes.iter().chain(&ready.notes).cloned();
    SoFar {
        found: &ready.found,
        plan: &ready.plan,
        fault: done.fault.as_ref(),
        healed: done.healed.as_ref(),
        observation,
        notes: kept.chain(notes).collect(),
    }
}
