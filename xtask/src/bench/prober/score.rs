//! What the observers made of outages whose truth is known. Pure.

use serde::Serialize;
use veza_probe::clock::At;
use veza_probe::outage::Outage;

use super::client::Poll;
use super::truth::{Kind, Truth};

/// How long after an outage its clients may still fail because of it: an attempt to connect hangs
/// for up to 2 s, then the connections are made again. Shorter than the gap between two outages.
const TAIL_US: i64 = 2_600_000;

/// One true outage, and what a prober said about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Probed {
    /// What the service did.
    pub kind: Kind,
    /// How long it did so.
    pub length_us: i64,
    /// Whether the prober must find it.
    pub detectable: bool,
    /// From its beginning until the service served this client again, by the service's own notes.
    pub until_served_us: Option<i64>,
    /// What was reported; none when nothing was.
    pub report: Option<Report>,
}

/// What a reported outage says about a true one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether the true beginning and end lie within its outermost moments.
    pub contains: bool,
    /// Its bounds.
    pub lower_us: i64,
    /// None when it was still open when probing ended.
    pub upper_us: Option<i64>,
    /// Within how much its beginning is known.
    pub start_width_us: Option<i64>,
    /// Within how much its end is known.
    pub end_width_us: Option<i64>,
}

impl Probed {
    /// How far the outage as the service had it lies outside the reported bounds; none when nothing
    /// was reported.
    pub fn outside_service_us(&self) -> Option<i64> {
        let report = self.report.as_ref()?;
        Some(report.outside_us(self.length_us))
    }

    /// How far the outage as this client had it, until it was served again, lies outside.
    pub fn outside_client_us(&self) -> Option<i64> {
        let report = self.report.as_ref()?;
        Some(report.outside_us(self.until_served_us?))
    }

    /// How far the middle of the bounds is from the truth.
    pub fn error_us(&self) -> Option<i64> {
        let report = self.report.as_ref()?;
        let middle_us = (report.lower_us + report.upper_us?) / 2;
        Some((middle_us - self.length_us).abs())
    }
}

impl Report {
    fn of(outage: &Outage, truth: &Truth) -> Report {
        let bounds = outage.started_after.zip(outage.ended_by);
        let since = |later: At, earlier: Option<At>| earlier.map(|at| later.us_since(at));
        Report {
            contains: bounds.is_some_and(|(s0, s1)| s0 <= truth.start && truth.end <= s1),
            lower_us: outage.length.lower_us,
            upper_us: outage.length.upper_us,
            start_width_us: since(outage.started_by, outage.started_after),
            end_width_us: outage.ended_by.map(|at| at.us_since(outage.ended_after)),
        }
    }

    /// The width of the bounds.
    pub fn width_us(&self) -> Option<i64> {
        self.upper_us.map(|upper_us| upper_us - self.lower_us)
    }

    fn outside_us(&self, length_us: i64) -> i64 {
        let below_us = self.lower_us - length_us;
        let above_us = self.upper_us.map_or(0, |upper_us| length_us - upper_us);
        below_us.max(above_us).max(0)
    }
}

/// What a prober said about all outages of its service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// One for each true outage.
    pub probed: Vec<Probed>,
    /// Reported outages that had no true one for a cause.
    pub uncaused: u64,
    /// Further reports of a true outage that was reported already.
    pub repeated: u64,
}

impl Score {
    /// Adds what the same kind of prober said about another service.
    pub fn add(&mut self, other: Score) {
        self.probed.extend(other.probed);
        self.uncaused += other.uncaused;
        self.repeated += other.repeated;
    }
}

/// Scores a prober; `served` are the moments at which the service served it, in the order of time.
pub fn probed(truths: &[Truth], found: &[Outage], served: &[At], detectable_us: i64) -> Score {
    let mut score = Score::default();
    let mut used = 0;
    for truth in truths {
        let touching = || found.iter().filter(|outage| touches(outage, truth, 0));
        let report = touching()
            .map(|outage| Report::of(outage, truth))
            .max_by_key(|report| (report.contains, report.upper_us));
        used += u64::from(report.is_some());
        let again = served.get(served.partition_point(|at| *at < truth.end));
        score.probed.push(Probed {
            kind: truth.kind,
            length_us: truth.length_us(),
            detectable: truth.length_us() > detectable_us,
            until_served_us: again.map(|at| at.us_since(truth.start)),
            report,
        });
    }
    let is_caused = |outage: &&Outage| truths.iter().any(|truth| touches(outage, truth, TAIL_US));
    let caused = found.iter().filter(is_caused).count() as u64;
    score.uncaused = found.len() as u64 - caused;
    score.repeated = caused.saturating_sub(used);
    score
}

/// Whether a reported outage may be this true one, or have followed within `tail_us` of its end.
fn touches(outage: &Outage, truth: &Truth, tail_us: i64) -> bool {
    let begins = outage
        .started_after
        .is_none_or(|s0| s0.0 <= truth.end.0 + tail_us);
    begins && outage.ended_by.is_none_or(|s1| truth.start <= s1)
}

/// One true outage, and what a poll loop made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Polled {
    /// What the service did.
    pub kind: Kind,
    /// How long it did so.
    pub length_us: i64,
    /// From the first bad poll to the first good one after it; none when no poll was bad.
    pub measured_us: Option<i64>,
}

impl Polled {
    /// How far what was measured is from the truth.
    pub fn error_us(&self) -> Option<i64> {
        Some((self.measured_us? - self.length_us).abs())
    }
}

/// Scores a poll loop as the scripts did: time of the first good poll less that of the first bad.
pub fn polled(truths: &[Truth], polls: &[Poll]) -> Vec<Polled> {
    truths
        .iter()
        .map(|truth| {
            let is_hit =
                |poll: &Poll| !poll.good && poll.start < truth.end && poll.end >= truth.start;
            let bad = polls.iter().position(is_hit);
            let measured_us = bad.and_then(|bad| {
                let from = polls.get(bad..)?;
                let good = from.iter().find(|poll| poll.good)?;
                Some(good.start.us_since(from.first()?.start))
            });
            Polled {
                kind: truth.kind,
                length_us: truth.length_us(),
                measured_us,
            }
        })
        .collect()
}

/// Median, 99th of 100 and greatest of some values (nearest rank, no interpolation).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// Half of them are at most this.
    pub p50_us: i64,
    /// 99 of 100 are at most this.
    pub p99_us: i64,
    /// None is greater.
    pub max_us: i64,
}

impl Spread {
    /// The spread of some values; none of none.
    pub fn of(values: impl IntoIterator<Item = i64>) -> Option<Spread> {
        let mut sorted: Vec<i64> = values.into_iter().collect();
        sorted.sort_unstable();
        let rank = |percent: usize| (sorted.len() * percent).div_ceil(100).max(1) - 1;
        Some(Spread {
            p50_us: *sorted.get(rank(50))?,
            p99_us: *sorted.get(rank(99))?,
            max_us: *sorted.last()?,
        })
    }
}

#[cfg(test)]
mod tests;
