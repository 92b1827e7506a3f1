//! The acts of a run, one after the other, each healed before the next one begins, and the one report of them all.

use super::Check;
use super::reports;
use super::run::{Played, Run};
use super::site::{self, of_incus, of_undo};
use crate::clock::{Clock, Signal, Stop};
use crate::incus::Incus;
use crate::outage::Interval;
use crate::report::{Folder, Report};
use crate::story::Story;
use crate::undo::{self, Chore, End, Leash, Recovered, State};
use crate::verdict::{Gate, Judgement, Verdict, rank};

/// What every act of a run shares.
pub(super) struct Cast<'a> {
    pub(super) clock: Clock,
    pub(super) story: Story,
    pub(super) stop: Stop,
    pub(super) kept: Option<&'a Folder>,
    pub(super) leash: Leash,
}

impl Cast<'_> {
    /// The whole run.
    pub(super) async fn play<C: Check>(self, first: &C) -> Report {
        let run = undo::run_id(&self.clock);
        let mut acts = Acts::default();
        let mut following: Option<C> = None;
        loop {
            let check = following.as_ref().unwrap_or(first);
            if let Some(act) = check.act().filter(|_| !acts.reports.is_empty()) {
                self.story.say(&format!("next act: {act}"));
            }
            let act = Run {
                clock: self.clock,
                check,
                story: self.story.clone(),
                stop: self.stop.clone(),
                kept: self.kept,
                leash: self.leash.clone(),
                before: &acts,
            };
            let Played { report, next } = act.run(&run).await;
            acts = acts.and(check.act(), report);
            let Some(next) = next else { break };
            following = Some(next);
        }
        let mut report = acts.report(&self.clock, first);
        if first.chores_last() {
            report.notes.extend(self.chores(first, &run).await);
        }
        report
    }

    /// Does the chores of this run, and of earlier ones that were killed; what was not done stays on record.
    async fn chores<C: Check>(&self, check: &C, run: &str) -> Vec<String> {
        let Ok((incus, _)) = site::connect(check.drill()).await else {
            return vec![format!(
                "Incus can't be asked: what run {run} left is still there"
            )];
        };
        let state = State::new(|name| std::env::var_os(name));
        let chores = async |chore: &Chore| check.chore(chore).await;
        let told = undo::finish_chores(&state, &incus, (C::NAME, &chores)).await;
        let own = format!("left by run {run}: ");
        let told = told
            .iter()
            .map(|words| words.strip_prefix(&own).unwrap_or(words).to_owned());
        told.collect()
    }

    /// Mends what earlier drills left.
    pub(super) async fn recover<C: Check>(self, check: &C) -> Report {
        let args = check.drill();
        let recovered = async {
            let (incus, _) = site::connect(args).await?;
            let state = State::new(|name| std::env::var_os(name));
            let wanted = undo::Wanted {
                expired_only: args.expired,
                take_over: args.take_over,
            };
            let chores = async |chore: &Chore| check.chore(chore).await;
            let chores = (C::NAME, &chores);
            let done = undo::recover(&incus, &self.clock, &state, wanted, chores).await;
            let done = done.map_err(|why| match why {
                undo::Unrecovered::Incus(error) => of_incus(&error),
                undo::Unrecovered::State(refusal) => of_undo(&refusal),
            })?;
            let note = self.timer_ran(&incus, &done, args.expired).await;
            Ok((done, note))
        };
        match recovered.await {
            Ok((recovered, note)) => reports::recovered(&self.clock, check, recovered, note),
            Err(why) => reports::untouched(&self.clock, check, why),
        }
    }

    /// Where this is the timer of the Incus host, and could mend what it found, drills over a remote may
    /// rely on it.
    async fn timer_ran(&self, incus: &Incus, done: &Recovered, expired: bool) -> Option<String> {
        if !expired || done.any(End::NotUndone) {
            return None;
        }
        let error = undo::timer_ran(incus, &self.clock).await.err()?;
        Some(format!(
            "drills over a remote will be refused, because the time of this run could not be kept: {error}"
        ))
    }
}

/// The acts that are over.
#[derive(Default)]
pub(super) struct Acts {
    reports: Vec<(Option<String>, Report)>,
}

impl Acts {
    /// These, and one more.
    pub(super) fn and(mut self, act: Option<String>, report: Report) -> Acts {
        self.reports.push((act, report));
        self
    }

    /// The report of all acts so far, the one that is under way being told of by this one.
    pub(super) fn with<C: Check>(&self, clock: &Clock, check: &C, report: Report) -> Report {
        let acts = Acts {
            reports: self.reports.clone(),
        };
        acts.and(check.act(), report).report(clock, check)
    }

    /// One report of all of them, which names each; that of the only one where acts have no names, or nothing was
    /// done in it.
    pub(super) fn report<C: Check>(mut self, clock: &Clock, first: &C) -> Report {
        let named =
            |(act, report): &(Option<String>, Report)| act.is_some() && report.fault.is_some();
        if self.reports.len() == 1
            && !self.reports.iter().any(named)
            && let Some((_, only)) = self.reports.pop()
        {
            return only;
        }
        let acts = self.reports.into_iter().map(|(act, mut report)| {
            report.act = Some(act.unwrap_or_default());
            report
        });
        let acts: Vec<Report> = acts.collect();
        let (name, system) = (C::NAME, first.system());
        let mut report = Report::new(name, clock, &judged(&acts));
        // A signal has a code of its own.
        let interrupted = acts.iter().find(|act| act.verdict == report.verdict);
        report.exit_code = interrupted.map_or(report.exit_code, |act| act.exit_code);
        report.system = system;
        merge(&mut report, acts);
        report
    }
}

/// What all acts came to: the worst of them. An act that was refused came after others that had broken something.
fn judged(acts: &[Report]) -> Judgement {
    let is_late = |number: usize, act: &Report| {
        let untouched = ["refused", "missing-tool", "usage"];
        number > 0 && untouched.contains(&act.verdict.as_str())
    };
    let ranked = acts
        .iter()
        .enumerate()
        .map(|(number, act)| match is_late(number, act) {
            true => (rank(Verdict::Inconclusive.word()), act, true),
            false => (rank(&act.verdict), act, false),
        });
    let Some((_, worst, late)) = ranked.min_by_key(|(rank, _, _)| *rank) else {
        let words = "no act was played";
        return Judgement::new(Verdict::Internal, "no-act", words, "report it");
    };
    let named =
        |act: &Report| format!("{}: {}", act.act.as_deref().unwrap_or_default(), act.reason);
    let (reason_id, next) = (worst.reason_id.as_str(), worst.next.as_str());
    if late {
        let words = format!("the act did not begin, {}", named(worst));
        return Judgement::new(Verdict::Inconclusive, reason_id, words, next);
    }
    let reason = match worst.verdict == Verdict::Pass.word() {
        true => acts.iter().map(named).collect::<Vec<_>>().join("; "),
        false => named(worst),
    };
    Judgement::new(of_word(&worst.verdict), reason_id, reason, next)
}

/// The verdict with this word; what no verdict has is a bug.
fn of_word(word: &str) -> Verdict {
    let all = [
        Verdict::Pass,
        Verdict::Refused,
        Verdict::Fail,
        Verdict::MissingTool,
        Verdict::NotUndone,
        Verdict::Inconclusive,
        Verdict::Usage,
        Verdict::Interrupted(Signal::Interrupt),
        Verdict::Planned,
        Verdict::Clean,
    ];
    let found = all.into_iter().find(|verdict| verdict.word() == word);
    found.unwrap_or(Verdict::Internal)
}

/// Puts what belongs to all acts into one report: gates, named by act, and what is the same for all.
fn merge(report: &mut Report, mut acts: Vec<Report>) {
    for act in &mut acts {
        let name = act.act.clone().unwrap_or_default();
        report
            .gates
            .extend(act.gates.iter().cloned().map(|gate| Gate {
                id: format!("{name}/{}", gate.id),
                ..gate
            }));
        for condition in act.conditions.drain(..) {
            if !report.conditions.contains(&condition) {
                report.conditions.push(condition);
            }
        }
        for sum in act.feasibility.drain(..) {
            if !report.feasibility.contains(&sum) {
                report.feasibility.push(sum);
            }
        }
        act.notes.retain(|note| !report.notes.contains(note));
        report.client_outage = longer(report.client_outage, act.client_outage);
    }
    report.acts = acts;
}

/// The longer of two outages: that without an end, then that with the later one.
fn longer(one: Option<Interval>, other: Option<Interval>) -> Option<Interval> {
    let key = |span: &Interval| (span.upper_us.unwrap_or(i64::MAX), span.lower_us);
    one.into_iter().chain(other).max_by_key(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn act(name: &str, verdict: Verdict) -> Report {
        let judgement = Judgement::new(verdict, "id", format!("{name} was so"), "next");
        let mut report = Report::new("check", &Clock::start(), &judgement);
        report.act = Some(name.to_owned());
        report
    }

    fn came_to(acts: &[(&str, Verdict)]) -> (Verdict, String) {
        let acts: Vec<Report> = acts
            .iter()
            .map(|(name, verdict)| act(name, *verdict))
            .collect();
        let judgement = judged(&acts);
        (judgement.verdict, judgement.reason)
    }

    #[test]
    fn the_worst_act_decides_and_a_pass_needs_them_all() {
        let passed = came_to(&[("a", Verdict::Pass), ("b", Verdict::Pass)]);
        assert_eq!(
            passed,
            (Verdict::Pass, "a: a was so; b: b was so".to_owned())
        );
        let failed = came_to(&[
            ("a", Verdict::Fail),
            ("b", Verdict::Pass),
            ("c", Verdict::Inconclusive),
        ]);
        assert_eq!(failed, (Verdict::Fail, "a: a was so".to_owned()));
        let gone = came_to(&[("a", Verdict::Fail), ("b", Verdict::NotUndone)]);
        assert_eq!(gone.0, Verdict::NotUndone);
        assert_eq!(came_to(&[]).0, Verdict::Internal);
    }

    #[test]
    fn an_act_that_is_refused_after_others_proves_nothing_and_is_not_told_as_untouched() {
        let (verdict, reason) = came_to(&[("a", Verdict::Pass), ("b", Verdict::Refused)]);
        assert_eq!(verdict, Verdict::Inconclusive);
        assert!(reason.contains("did not begin, b: b was so"), "{reason}");
        let failed = came_to(&[("a", Verdict::Fail), ("b", Verdict::Refused)]);
        assert_eq!(failed.0, Verdict::Fail);
        assert_eq!(came_to(&[("a", Verdict::Refused)]).0, Verdict::Refused);
    }

    #[test]
    fn gates_are_named_by_their_act_and_the_longest_outage_is_told() {
        let mut acts = vec![act("a", Verdict::Pass), act("b", Verdict::Pass)];
        for (number, act) in acts.iter_mut().enumerate() {
            act.gates = vec![Gate::at_most("rto", "t", 1.0, "s", None)];
            act.notes = vec!["the same".to_owned()];
            act.condition("version", "1");
            let us = [5, 3][number];
            act.client_outage = Some(Interval::new(us, Some(us)));
        }
        let mut report = act("", Verdict::Pass);
        merge(&mut report, acts);
        let ids: Vec<&str> = report.gates.iter().map(|gate| gate.id.as_str()).collect();
        assert_eq!(ids, ["a/rto", "b/rto"]);
        assert_eq!(report.client_outage, Some(Interval::new(5, Some(5))));
        assert_eq!((report.conditions.len(), report.acts.len()), (1, 2));
    }
}
