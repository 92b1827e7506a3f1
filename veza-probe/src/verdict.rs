//! Gates, verdicts and exit codes. Pure: no Incus, no clock, no I/O.
//!
//! The codes are those that the cron lines of the replaced scripts rely on (0 pass, 1 refused,
//! 2 fail, 3 missing tool), with sysexits.h's 64 for usage and 70 for internal, and 128 + n for a
//! signal as shells do it.

mod ended;
mod experiment;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clock::Signal;
use crate::outage::Interval;

pub use ended::Ended;
pub use experiment::Experiment;

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every gate held.
    Pass,
    /// The baseline was unhealthy or the credentials were refused; nothing was touched.
    Refused,
    /// A gate was missed.
    Fail,
    /// A local program, permission, socket or project is not there; nothing was touched.
    MissingTool,
    /// The fault may still be in place.
    NotUndone,
    /// The experiment said nothing.
    Inconclusive,
    /// Bad arguments or environment values; nothing was touched.
    Usage,
    /// A bug of ours; the fault was undone.
    Internal,
    /// A signal ended the run; the fault was undone.
    Interrupted(Signal),
    /// `--dry-run`: everything up to the fault.
    Planned,
    /// `--recover`: nothing is left of any drill.
    Clean,
}

impl Verdict {
    /// The word that reports use.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Refused => "refused",
            Verdict::Fail => "fail",
            Verdict::MissingTool => "missing-tool",
            Verdict::NotUndone => "not-undone",
            Verdict::Inconclusive => "inconclusive",
            Verdict::Usage => "usage",
            Verdict::Internal => "internal",
            Verdict::Interrupted(_) => "interrupted",
            Verdict::Planned => "planned",
            Verdict::Clean => "clean",
        }
    }

    /// The exit code of most checks.
    pub fn code(self) -> u8 {
        match self {
            Verdict::Pass | Verdict::Planned | Verdict::Clean => 0,
            Verdict::Refused => 1,
            Verdict::Fail => 2,
            Verdict::MissingTool => 3,
            Verdict::NotUndone => 4,
            Verdict::Inconclusive => 5,
            Verdict::Usage => 64,
            Verdict::Internal => 70,
            Verdict::Interrupted(signal) => 128 + signal.number(),
        }
    }
}

/// Every verdict that a drill can end with, the worst first.
pub const WORST_FIRST: [Verdict; 9] = [
    Verdict::NotUndone,
    Verdict::Internal,
    Verdict::Fail,
    Verdict::Inconclusive,
    Verdict::Interrupted(Signal::Interrupt),
    Verdict::Refused,
    Verdict::MissingTool,
    Verdict::Usage,
    Verdict::Pass,
];

/// How bad a verdict is, by its word: 0 is the worst, and an unknown word is no better than a pass.
pub fn rank(word: &str) -> usize {
    let found = WORST_FIRST
        .iter()
        .position(|verdict| verdict.word() == word);
    found.unwrap_or(WORST_FIRST.len())
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The exit codes, for the end of `--help`.
pub const EXIT_CODES: &str = "Exit codes:
  0    pass: every gate held (also: --dry-run planned, --recover clean, --help, --version)
  1    refused: the baseline is unhealthy or credentials were refused; nothing was touched
  2    fail: a gate was missed
  3    missing tool: a file permission, the Incus socket or the project is not there
  4    not undone: the fault may still be in place, look now
  5    inconclusive: the experiment said nothing (no evidence of the fault, blind observer,
       or a limit inside the measured interval)
  64   usage: bad arguments or environment values
  70   internal: a bug of this tool; the fault was undone
  129, 130, 143
       interrupted by SIGHUP, SIGINT, SIGTERM; the fault was undone";

/// A verdict with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What the run came to.
    pub verdict: Verdict,
    /// A stable word for the reason, for scripts and the runbook: `all-gates-held`.
    pub reason_id: String,
    /// The reason in one sentence.
    pub reason: String,
    /// The next command or step for a person.
    pub next: String,
}

impl Judgement {
    /// A verdict with its reason and what to do next.
    pub fn new(
        verdict: Verdict,
        reason_id: &str,
        reason: impl Into<String>,
        next: impl Into<String>,
    ) -> Judgement {
        let (reason, next) = (reason.into(), next.into());
        Judgement {
            verdict,
            reason_id: reason_id.to_owned(),
            reason,
            next,
        }
    }
}

/// A measured value with its bounds, in the unit of its gate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Measured {
    /// It is at least this.
    pub lower: f64,
    /// It is at most this; none when it had no end while it was watched.
    pub upper: Option<f64>,
}

impl Measured {
    /// A value known exactly.
    pub fn exact(value: f64) -> Measured {
        Measured {
            lower: value,
            upper: Some(value),
        }
    }

    /// The value with its bounds, for people; what is counted is whole.
    pub fn told(&self, unit: &str) -> String {
        let Measured { lower, upper } = *self;
        match upper {
            Some(upper) if upper == lower && upper.fract() == 0.0 => format!("{upper:.0} {unit}"),
            Some(upper) if upper == lower => format!("{upper:.2} {unit}"),
            Some(upper) => format!("{lower:.2} to {upper:.2} {unit}"),
            None => format!("at least {lower:.2} {unit}"),
        }
    }
}

impl From<Interval> for Measured {
    /// Microseconds in seconds.
    fn from(span: Interval) -> Measured {
        let seconds = |us: i64| us as f64 / 1e6;
        Measured {
            lower: seconds(span.lower_us),
            upper: span.upper_us.map(seconds),
        }
    }
}

/// What became of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The promise held.
    Held,
    /// The promise was missed.
    Missed,
    /// The limit lies inside the measured interval, or nothing was measured.
    Unclear,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Held => "held",
            Outcome::Missed => "missed",
            Outcome::Unclear => "unclear",
        })
    }
}

/// On which side of its limit a value holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// A time, a number of losses.
    #[default]
    AtMost,
    /// A rate.
    AtLeast,
}

/// One promise, with its limit and what was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Gate {
    /// A stable word: `rto`.
    pub id: String,
    /// What is promised, for people.
    pub title: String,
    /// The value may be at most this, or must be at least this: see `bound`.
    pub limit: f64,
    /// On which side of the limit the promise holds.
    #[serde(default)]
    pub bound: Bound,
    /// The unit of limit and value: `s`, `writes`.
    pub unit: String,
    /// What was measured; none when nothing was.
    pub measured: Option<Measured>,
    /// What became of it.
    pub outcome: Outcome,
}

impl Gate {
    /// A gate that holds when the value is at most `limit`: missed when even the lower bound is
    /// above it, unclear when it lies inside the interval or nothing was measured.
    pub fn at_most(
        id: &str,
        title: &str,
        limit: f64,
        unit: &str,
        measured: Option<Measured>,
    ) -> Gate {
        let outcome = match measured {
            Some(Measured { lower, .. }) if lower > limit => Outcome::Missed,
            Some(Measured {
                upper: Some(upper), ..
            }) if upper <= limit => Outcome::Held,
            _ => Outcome::Unclear,
        };
        Gate {
            id: id.into(),
            title: title.into(),
            limit,
            bound: Bound::AtMost,
            unit: unit.into(),
            measured,
            outcome,
        }
    }

    /// A gate that holds when the value is at least `limit`: missed when even the upper bound is
    /// below it, unclear when it lies inside the interval or nothing was measured.
    pub fn at_least(
        id: &str,
        title: &str,
        limit: f64,
        unit: &str,
        measured: Option<Measured>,
    ) -> Gate {
        let outcome = match measured {
            Some(Measured {
                upper: Some(upper), ..
            }) if upper < limit => Outcome::Missed,
            Some(Measured { lower, .. }) if lower >= limit => Outcome::Held,
            _ => Outcome::Unclear,
        };
        Gate {
            bound: Bound::AtLeast,
            outcome,
            ..Gate::at_most(id, title, limit, unit, measured)
        }
    }

    /// The gate in a sentence: what was measured, against which limit.
    pub fn told(&self) -> String {
        let Gate {
            title,
            id,
            limit,
            unit,
            ..
        } = self;
        let value = self.measured.map(|measured| measured.told(unit));
        let value = value.unwrap_or_else(|| "not measured".to_owned());
        format!("{title} ({id}): {value}, the limit is {limit} {unit}")
    }
}

/// The worst outcome of all gates. No gates at all is unclear: it proves nothing.
pub fn worst(gates: &[Gate]) -> Outcome {
    let any = |outcome| gates.iter().any(|g| g.outcome == outcome);
    if any(Outcome::Missed) {
        Outcome::Missed
    } else if any(Outcome::Unclear) || gates.is_empty() {
        Outcome::Unclear
    } else {
        Outcome::Held
    }
}

/// The verdict over gates: `held` when every one held; otherwise those that did not, in words, and `next`
/// is what a person does.
pub fn of_gates(gates: &[Gate], held: impl FnOnce() -> String, next: &str) -> Judgement {
    let worst = worst(gates);
    let such: Vec<&Gate> = gates.iter().filter(|g| g.outcome == worst).collect();
    let words: Vec<String> = such.iter().map(|gate| gate.told()).collect();
    match worst {
        Outcome::Missed => {
            let reason_id = match such.as_slice() {
                [only] => format!("{}-missed", only.id),
                _ => "gates-missed".to_owned(),
            };
            Judgement::new(Verdict::Fail, &reason_id, words.join("; "), next)
        }
        Outcome::Unclear => {
            let reason = format!("can't tell: {}", words.join("; "));
            let verdict = Verdict::Inconclusive;
            Judgement::new(verdict, "limit-inside-interval", reason, next)
        }
        Outcome::Held => Judgement::new(Verdict::Pass, "all-gates-held", held(), "nothing to do"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(lower: f64, upper: Option<f64>) -> Outcome {
        Gate::at_most("rto", "RTO", 60.0, "s", Some(Measured { lower, upper })).outcome
    }

    #[test]
    fn at_below_and_above_the_limit() {
        assert_eq!(gate(59.0, Some(59.9)), Outcome::Held);
        assert_eq!(gate(59.9, Some(60.0)), Outcome::Held);
        assert_eq!(gate(60.0, Some(60.0)), Outcome::Held);
        assert_eq!(gate(60.1, Some(60.2)), Outcome::Missed);
        assert_eq!(gate(60.1, None), Outcome::Missed);
    }

    #[test]
    fn at_least_holds_on_the_other_side() {
        let least = |lower, upper| {
            let measured = Some(Measured { lower, upper });
            Gate::at_least("tps", "tps", 500.0, "/s", measured).outcome
        };
        assert_eq!(least(499.0, Some(499.9)), Outcome::Missed);
        assert_eq!(least(500.0, Some(500.0)), Outcome::Held);
        assert_eq!(least(501.0, None), Outcome::Held);
        assert_eq!(least(499.0, Some(501.0)), Outcome::Unclear);
        assert_eq!(least(499.0, None), Outcome::Unclear);
        assert_eq!(least(f64::NAN, Some(f64::NAN)), Outcome::Unclear);
        let nothing = Gate::at_least("tps", "tps", 500.0, "/s", None);
        assert_eq!(nothing.outcome, Outcome::Unclear);
    }

    #[test]
    fn a_limit_inside_the_interval_or_nothing_measured_is_unclear() {
        assert_eq!(gate(59.9, Some(60.1)), Outcome::Unclear);
        assert_eq!(gate(60.0, Some(60.1)), Outcome::Unclear);
        assert_eq!(gate(10.0, None), Outcome::Unclear);
        assert_eq!(gate(f64::NAN, Some(f64::NAN)), Outcome::Unclear);
        assert_eq!(
            Gate::at_most("rto", "RTO", 60.0, "s", None).outcome,
            Outcome::Unclear
        );
    }

    #[test]
    fn the_worst_gate_decides_and_no_gate_decides_nothing() {
        let held = Gate::at_most("a", "a", 1.0, "s", Some(Measured::exact(0.5)));
        let missed = Gate::at_most("b", "b", 1.0, "s", Some(Measured::exact(2.0)));
        let unclear = Gate::at_most("c", "c", 1.0, "s", None);
        assert_eq!(worst(&[]), Outcome::Unclear);
        assert_eq!(worst(std::slice::from_ref(&held)), Outcome::Held);
        assert_eq!(worst(&[held.clone(), unclear.clone()]), Outcome::Unclear);
        assert_eq!(worst(&[unclear, missed, held]), Outcome::Missed);
    }

    #[test]
    fn gates_that_did_not_hold_are_told_and_no_gates_are_no_pass() {
        let judged = |gates: &[Gate]| {
            let judgement = of_gates(gates, || "fine".to_owned(), "look");
            (judgement.verdict, judgement.reason_id, judgement.reason)
        };
        let gate = |id: &str, value: f64| {
            let measured = Some(Measured::exact(value));
            Gate::at_most(id, "time", 1.0, "s", measured)
        };
        let (held, unclear) = (gate("a", 0.5), Gate::at_most("c", "time", 1.0, "s", None));
        let (missed, worse) = (gate("b", 2.0), gate("d", 2.5));
        let pass = (Verdict::Pass, "all-gates-held".into(), "fine".into());
        assert_eq!(judged(std::slice::from_ref(&held)), pass);
        let (verdict, reason_id, reason) = judged(&[held.clone(), missed.clone(), unclear.clone()]);
        assert_eq!((verdict, reason_id.as_str()), (Verdict::Fail, "b-missed"));
        assert_eq!(reason, "time (b): 2 s, the limit is 1 s");
        let (_, reason_id, reason) = judged(&[missed, worse]);
        assert_eq!(reason_id, "gates-missed");
        assert!(reason.ends_with("; time (d): 2.50 s, the limit is 1 s"));
        let (verdict, reason_id, reason) = judged(&[held, unclear]);
        assert_eq!(verdict, Verdict::Inconclusive);
        assert_eq!(reason_id, "limit-inside-interval");
        assert_eq!(
            reason,
            "can't tell: time (c): not measured, the limit is 1 s"
        );
        assert_eq!(judged(&[]).0, Verdict::Inconclusive);
    }

    #[test]
    fn codes_that_cron_lines_rely_on() {
        let codes = [
            (Verdict::Pass, 0),
            (Verdict::Planned, 0),
            (Verdict::Clean, 0),
            (Verdict::Refused, 1),
            (Verdict::Fail, 2),
            (Verdict::MissingTool, 3),
            (Verdict::NotUndone, 4),
            (Verdict::Inconclusive, 5),
            (Verdict::Usage, 64),
            (Verdict::Internal, 70),
            (Verdict::Interrupted(Signal::Hangup), 129),
            (Verdict::Interrupted(Signal::Interrupt), 130),
            (Verdict::Interrupted(Signal::Terminate), 143),
        ];
        for (verdict, code) in codes {
            assert_eq!(verdict.code(), code, "{verdict}");
        }
    }
}
