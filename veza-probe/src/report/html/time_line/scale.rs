//! Where a moment stands in the drawing. Pure.

use crate::clock::At;
use crate::report::Report;

/// Where lanes begin and end, in units of the drawing.
pub(super) const LEFT: f64 = 130.0;
/// The right end of lanes.
pub(super) const RIGHT: f64 = 940.0;

/// How much of the time after the fault is shown before it.
const LEAD: f64 = 0.08;

/// How many ticks an axis has at most.
const TICKS_MAX: f64 = 12.0;

/// Seconds after a fault was called, spread over a lane.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    zero: At,
    from_s: f64,
    to_s: f64,
}

impl Scale {
    /// A scale that shows everything after the fault, and some of what was before it: all that was
    /// told, but only a little of healthy probes.
    pub(super) fn of(report: &Report, zero: At) -> Scale {
        let told = told(report);
        let seconds = |at: At| at.us_since(zero) as f64 / 1e6;
        let probed = report.probe_runs.iter().map(|run| At(run.ended_us));
        let last = told.iter().copied().chain(probed).map(seconds);
        let to_s = last.fold(1.0, f64::max);
        let first = told.iter().copied().map(seconds).fold(0.0, f64::min);
        let lead_s = -to_s * LEAD;
        Scale {
            zero,
            from_s: first.min(lead_s),
            to_s: to_s * 1.01,
        }
    }

    /// Seconds after the fault.
    pub(super) fn seconds(&self, at: At) -> f64 {
        at.us_since(self.zero) as f64 / 1e6
    }

    /// Where a moment stands; at an end of the lane when it lies outside.
    pub(super) fn x(&self, at: At) -> f64 {
        self.x_of(self.seconds(at))
    }

    fn x_of(&self, seconds: f64) -> f64 {
        let part = (seconds - self.from_s) / (self.to_s - self.from_s);
        LEFT + part.clamp(0.0, 1.0) * (RIGHT - LEFT)
    }

    /// Round numbers of seconds with their places.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        let step = round_step((self.to_s - self.from_s) / TICKS_MAX);
        let decimals = if step < 1.0 { 1 } else { 0 };
        let first = (self.from_s / step).ceil();
        let numbers = (0..=20).map(|n| (first + f64::from(n)) * step);
        numbers
            .take_while(|seconds| *seconds <= self.to_s)
            // Adding 0 makes a negative zero a plain one.
            .map(|seconds| (self.x_of(seconds), format!("{:.decimals$}", seconds + 0.0)))
            .collect()
    }
}

/// The next of 0.1, 0.2, 0.5, 1, 2, 5, 10, … that is no smaller.
fn round_step(smallest: f64) -> f64 {
    let mut power = 0.1;
    for _ in 0..20 {
        for factor in [1.0, 2.0, 5.0] {
            if power * factor >= smallest {
                return power * factor;
            }
        }
        power *= 10.0;
    }
    power
}

/// Every moment that something is told of.
fn told(report: &Report) -> Vec<At> {
    let mut all: Vec<At> = report.events.iter().map(|event| event.at).collect();
    for phase in &report.phases {
        all.extend([phase.at.earliest, phase.at.latest]);
    }
    for outage in &report.outages {
        all.extend([outage.started_by, outage.ended_after]);
        all.extend(outage.started_after);
        all.extend(outage.ended_by);
    }
    for overlap in &report.overlaps {
        all.extend([overlap.earliest, overlap.latest]);
    }
    for step in &report.undo {
        all.push(step.began);
        all.extend(step.done);
    }
    if let Some(fault) = &report.fault {
        all.extend(fault.evidence.as_ref().map(|evidence| evidence.at));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scale(from_s: f64, to_s: f64) -> Scale {
        Scale {
            zero: At(1_000_000),
            from_s,
            to_s,
        }
    }

    #[test]
    fn moments_outside_stand_at_the_ends() {
        let scale = scale(-1.0, 9.0);
        assert_eq!(scale.x(At(0)), LEFT);
        assert_eq!(scale.x(At(10_000_000)), RIGHT);
        assert_eq!(scale.x(At(5_000_000)), (LEFT + RIGHT) / 2.0);
        assert_eq!(scale.x(At(i64::MIN)), LEFT);
        assert_eq!(scale.x(At(i64::MAX)), RIGHT);
    }

    #[test]
    fn ticks_are_round_few_and_hold_the_fault() {
        for (from, to) in [(-0.1, 1.0), (-1.3, 16.0), (-20.0, 250.0), (-400.0, 5000.0)] {
            let ticks = scale(from, to).ticks();
            assert!((4..=13).contains(&ticks.len()), "{from} {to}: {ticks:?}");
            let zero = ticks.iter().any(|(_, told)| told == "0" || told == "0.0");
            assert!(zero, "{from} {to}: {ticks:?}");
        }
        let told: Vec<String> = scale(-1.3, 16.0).ticks().into_iter().map(|t| t.1).collect();
        assert_eq!(told, ["0", "2", "4", "6", "8", "10", "12", "14", "16"]);
    }

    #[test]
    fn a_span_that_no_run_has_is_bounded_too() {
        assert!(scale(-9e12, 9e12).ticks().len() <= 21);
    }
}
