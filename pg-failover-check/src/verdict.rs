//! Judges what was seen. Pure: no Incus, no clock, no I/O; every gate is tested at, below and above
//! its limit.

use std::time::Duration;

use veza_probe::clock::{At, Signal};
use veza_probe::fault::{Fault, Healed, Kind};
use veza_probe::outage::{self, Interval};
use veza_probe::prober::Lateness;
use veza_probe::verdict::{Gate, Judgement, Measured, Outcome, Verdict, worst};

use crate::observation::{Observation, phases};

/// The promises of a run.
#[derive(Clone, Copy, Debug)]
pub struct Promises {
    /// The longest that a client may be unable to write, in seconds.
    pub rto_s: f64,
    /// The longest until the formation is whole after the heal, in seconds.
    pub redundancy_s: f64,
}

/// What the run saw, as far as it came.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The instance that was broken.
    pub target: String,
    /// Whether nothing was to be broken (`--fault none`).
    pub control_run: bool,
    /// Whether the fault was seen by something other than the injector.
    pub evidence: bool,
    /// What the injecting call said when it failed.
    pub trouble: Option<String>,
    /// Why the observer can't be believed.
    pub blind: Option<String>,
    /// The longest that a client could not write, in seconds; none when no probe failed.
    pub outage_s: Option<Measured>,
    /// Whether writes succeeded again and went on doing so.
    pub service_back: bool,
    /// From the heal until the formation was whole, in seconds.
    pub redundancy_s: Option<Measured>,
    /// The signal that ended the run.
    pub interrupted: Option<Signal>,
    /// The panic or bug that ended it.
    pub bug: Option<String>,
    /// Whether healing was done and proven; none when it has not been tried yet.
    pub undone: Option<bool>,
    /// What healing said when it was not done.
    pub undo_trouble: String,
}

impl Seen {
    /// Takes over what the client and the monitor saw.
    pub fn observed(&mut self, observation: &Observation, settle: Duration, healed: Option<At>) {
        let samples = &observation.samples;
        let outages = outage::outages(samples);
        self.outage_s = phases::client_outage(&outages, settle).map(in_seconds);
        self.service_back = outages.last().is_none_or(|last| last.ended_by.is_some());
        let spacing = observation.shape.spacing();
        self.blind = match Lateness::of(samples) {
            None => Some("no probe has an outcome".to_owned()),
            Some(lateness) if lateness.blind(spacing) => Some(format!(
                "1 probe in 100 was sent more than {:.1} ms late by our own fault, with {:.0} ms \
                 between probes: this host is too busy to measure",
                lateness.p99_us as f64 / 1e3,
                spacing.as_secs_f64() * 1e3
            )),
            Some(_) => None,
        };
        self.redundancy_s = healed.and_then(|healed| redundancy(observation, healed));
    }

    /// Takes over what the fault came to.
    pub fn faulted(&mut self, fault: &Fault) {
        self.control_run = fault.plan.kind == Kind::None;
        self.evidence = fault.evidence.is_some();
        self.trouble.clone_from(&fault.trouble);
    }

    /// Takes over what healing came to.
    pub fn healed(&mut self, healed: &Healed) {
        self.undone = Some(healed.undone());
        let missing = healed.steps.iter().filter(|step| step.done.is_none());
        let told = missing.map(|step| format!("{}: {}", step.step, step.words));
        self.undo_trouble = told.collect::<Vec<_>>().join("; ");
    }
}

fn in_seconds(span: Interval) -> Measured {
    let seconds = |us: i64| us as f64 / 1e6;
    Measured {
        lower: seconds(span.lower_us),
        upper: span.upper_us.map(seconds),
    }
}

/// From the heal until the formation was whole; none when the monitor was not seen since.
fn redundancy(observation: &Observation, healed: At) -> Option<Measured> {
    let (missing, whole) = observation.record.whole_again(healed);
    let lower_us = missing.map_or(0, |look| look.asked.us_since(healed));
    let upper_us = whole.map(|look| look.answered.us_since(healed));
    (missing.is_some() || whole.is_some()).then(|| in_seconds(Interval::new(lower_us, upper_us)))
}

const LOOK_NOW: &str = "look now: `incus list`, then start the instance by hand with `incus start`";
const RUNBOOK: &str = "see docs/runbooks/pg-failover-check.md";

/// The gates of a run.
pub fn gates(seen: &Seen, promises: &Promises) -> Vec<Gate> {
    if seen.control_run {
        let seconds = Some(seen.outage_s.unwrap_or(Measured::exact(0.0)));
        let title = "nothing was broken, so no probe may fail";
        return vec![Gate::at_most("no-outage", title, 0.0, "s", seconds)];
    }
    let rto = "time in which a client could not write";
    let redundancy = "time until the formation was whole after the heal";
    vec![
        Gate::at_most("rto", rto, promises.rto_s, "s", seen.outage_s),
        Gate::at_most(
            "redundancy",
            redundancy,
            promises.redundancy_s,
            "s",
            seen.redundancy_s,
        ),
    ]
}

/// The verdict over what was seen. A fault that may still be there outranks everything, then a bug,
/// then the signal that ended the run; what proves nothing is never a pass.
pub fn judge(seen: &Seen, gates: &[Gate]) -> Judgement {
    if seen.undone == Some(false) {
        let reason = format!("{} may still be broken: {}", seen.target, seen.undo_trouble);
        return Judgement::new(Verdict::NotUndone, "fault-may-remain", reason, LOOK_NOW);
    }
    if let Some(bug) = &seen.bug {
        let reason = format!("a bug of this tool ended the run; the fault was undone: {bug}");
        return Judgement::new(
            Verdict::Internal,
            "bug",
            reason,
            "report it with the story above",
        );
    }
    if let Some(signal) = seen.interrupted {
        let reason = format!("{signal} ended the run; the fault was undone");
        return Judgement::new(
            Verdict::Interrupted(signal),
            "interrupted",
            reason,
            "run it again",
        );
    }
    if let Some((reason_id, reason)) = says_nothing(seen) {
        return Judgement::new(Verdict::Inconclusive, reason_id, reason, RUNBOOK);
    }
    match worst(gates) {
        Outcome::Missed => missed(seen, gates),
        Outcome::Unclear => unclear(gates),
        Outcome::Held => {
            Judgement::new(Verdict::Pass, "all-gates-held", held(seen), "nothing to do")
        }
    }
}

/// Why the experiment says nothing, if it doesn't.
fn says_nothing(seen: &Seen) -> Option<(&'static str, String)> {
    if let Some(blind) = &seen.blind {
        return Some(("observer-blind", blind.clone()));
    }
    if seen.control_run {
        return None;
    }
    let target = &seen.target;
    if !seen.evidence {
        let trouble = seen
            .trouble
            .as_deref()
            .unwrap_or("it went on answering, or nobody else did");
        let reason = format!("no evidence that {target} was broken: {trouble}");
        return Some(("no-evidence", reason));
    }
    if seen.outage_s.is_none() {
        let reason = format!("{target} was broken, but no probe failed: the client did not use it");
        return Some(("no-outage-seen", reason));
    }
    None
}

fn missed(seen: &Seen, gates: &[Gate]) -> Judgement {
    let missed: Vec<&Gate> = gates
        .iter()
        .filter(|g| g.outcome == Outcome::Missed)
        .collect();
    let reason_id = match missed.as_slice() {
        [only] => format!("{}-missed", only.id),
        _ => "gates-missed".to_owned(),
    };
    let told = missed.iter().map(|gate| told(gate));
    let mut reason = told.collect::<Vec<_>>().join("; ");
    if !seen.control_run && !seen.service_back {
        reason.push_str("; writes did not come back while they were watched");
    }
    Judgement::new(Verdict::Fail, &reason_id, reason, RUNBOOK)
}

fn unclear(gates: &[Gate]) -> Judgement {
    let unclear = gates
        .iter()
        .filter(|g| g.outcome == Outcome::Unclear)
        .map(told);
    let reason = format!("can't tell: {}", unclear.collect::<Vec<_>>().join("; "));
    Judgement::new(
        Verdict::Inconclusive,
        "limit-inside-interval",
        reason,
        RUNBOOK,
    )
}

fn held(seen: &Seen) -> String {
    let told = |m: Option<Measured>| m.map_or_else(|| "an unknown time".to_owned(), span);
    if seen.control_run {
        return "nothing was broken and no probe failed".to_owned();
    }
    format!(
        "a client could not write for {} after {} was broken; the formation was whole again {} after \
         the heal",
        told(seen.outage_s),
        seen.target,
        told(seen.redundancy_s)
    )
}

/// A gate in a sentence: what was measured, against which limit.
fn told(gate: &Gate) -> String {
    let Gate {
        title, id, limit, ..
    } = gate;
    format!("{title} ({id}) was {}, the limit is {limit} s", value(gate))
}

fn value(gate: &Gate) -> String {
    gate.measured
        .map_or_else(|| "not measured".to_owned(), span)
}

fn span(measured: Measured) -> String {
    match measured.upper {
        Some(upper) if upper == measured.lower => format!("{upper:.2} s"),
        Some(upper) => format!("{:.2} to {upper:.2} s", measured.lower),
        None => format!("at least {:.2} s", measured.lower),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMISES: Promises = Promises {
        rto_s: 60.0,
        redundancy_s: 120.0,
    };

    fn between(lower: f64, upper: f64) -> Option<Measured> {
        Some(Measured {
            lower,
            upper: Some(upper),
        })
    }

    fn good() -> Seen {
        Seen {
            target: "pgaf-primary".into(),
            evidence: true,
            outage_s: between(9.5, 9.6),
            service_back: true,
            redundancy_s: between(7.0, 7.3),
            undone: Some(true),
            ..Seen::default()
        }
    }

    fn judged(seen: &Seen) -> (Verdict, String) {
        let judgement = judge(seen, &gates(seen, &PROMISES));
        (judgement.verdict, judgement.reason_id)
    }

    fn with(change: impl FnOnce(&mut Seen)) -> (Verdict, String) {
        let mut seen = good();
        change(&mut seen);
        judged(&seen)
    }

    #[test]
    fn rto_at_below_and_above_its_limit() {
        assert_eq!(judged(&good()), (Verdict::Pass, "all-gates-held".into()));
        assert_eq!(with(|s| s.outage_s = between(59.9, 60.0)).0, Verdict::Pass);
        assert_eq!(
            with(|s| s.outage_s = between(60.1, 60.2)),
            (Verdict::Fail, "rto-missed".into())
        );
        assert_eq!(
            with(|s| s.outage_s = between(59.9, 60.1)).0,
            Verdict::Inconclusive
        );
        let open = |lower| Some(Measured { lower, upper: None });
        assert_eq!(with(|s| s.outage_s = open(61.0)).0, Verdict::Fail);
        assert_eq!(with(|s| s.outage_s = open(20.0)).0, Verdict::Inconclusive);
    }

    #[test]
    fn redundancy_at_below_and_above_its_limit() {
        assert_eq!(
            with(|s| s.redundancy_s = between(119.0, 120.0)).0,
            Verdict::Pass
        );
        assert_eq!(
            with(|s| s.redundancy_s = Some(Measured {
                lower: 120.2,
                upper: None
            })),
            (Verdict::Fail, "redundancy-missed".into())
        );
        assert_eq!(
            with(|s| s.redundancy_s = between(119.9, 120.1)).0,
            Verdict::Inconclusive
        );
        assert_eq!(with(|s| s.redundancy_s = None).0, Verdict::Inconclusive);
        let both = with(|s| {
            s.outage_s = between(70.0, 71.0);
            s.redundancy_s = Some(Measured {
                lower: 120.2,
                upper: None,
            });
        });
        assert_eq!(both, (Verdict::Fail, "gates-missed".into()));
    }

    #[test]
    fn what_proves_nothing_is_never_a_pass() {
        assert_eq!(
            with(|s| s.evidence = false),
            (Verdict::Inconclusive, "no-evidence".into())
        );
        assert_eq!(
            with(|s| s.outage_s = None),
            (Verdict::Inconclusive, "no-outage-seen".into())
        );
        assert_eq!(
            with(|s| s.blind = Some("late".into())),
            (Verdict::Inconclusive, "observer-blind".into())
        );
        let seen = Seen::default();
        assert_ne!(
            judge(&seen, &gates(&seen, &PROMISES)).verdict,
            Verdict::Pass
        );
        assert_ne!(judge(&good(), &[]).verdict, Verdict::Pass);
        // Without evidence not even a missed gate is a failure of the system.
        let missed = with(|s| {
            s.evidence = false;
            s.outage_s = between(70.0, 71.0);
        });
        assert_eq!(missed.0, Verdict::Inconclusive);
    }

    #[test]
    fn a_fault_that_may_remain_outranks_everything() {
        let worst = with(|s| {
            s.undone = Some(false);
            s.bug = Some("x".into());
            s.interrupted = Some(Signal::Interrupt);
        });
        assert_eq!(worst, (Verdict::NotUndone, "fault-may-remain".into()));
        let bug = with(|s| {
            s.bug = Some("x".into());
            s.interrupted = Some(Signal::Interrupt);
        });
        assert_eq!(bug.0, Verdict::Internal);
        let signal = with(|s| s.interrupted = Some(Signal::Terminate));
        assert_eq!(signal.0, Verdict::Interrupted(Signal::Terminate));
    }

    #[test]
    fn a_control_run_must_show_no_outage() {
        let control = |outage_s| {
            let seen = Seen {
                control_run: true,
                outage_s,
                undone: Some(true),
                ..Seen::default()
            };
            judged(&seen)
        };
        assert_eq!(control(None).0, Verdict::Pass);
        assert_eq!(
            control(between(0.1, 0.2)),
            (Verdict::Fail, "no-outage-missed".into())
        );
        assert_eq!(control(between(0.0, 0.05)).0, Verdict::Inconclusive);
    }
}
