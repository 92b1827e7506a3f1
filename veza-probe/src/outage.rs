//! What samples mean: outages with bounds, whether the service is back, and phases. Pure.
//!
//! A client knows a service only at its samples. A success says that the service was up at some
//! moment between its start and its end, a failure that it was away at some moment between its own.
//! So the bounds of an outage come from those samples alone:
//!
//! ```text
//!   success      f1 ......... fn       success
//!  |s0---end|  |start-end| |start-end|  |start---s1|
//!   s0          upper = s1 - s0                  s1
//!                        |-| lower = fn.start - f1.end, at least 0
//! ```
//! What lies between two samples is not seen. An outage longer than [`detectable`] can't hide
//! there; a shorter one, and a shorter return of the service in the middle of an outage, may.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clock::{At, micros};
use crate::prober::{Sample, Shape, percentile};

/// A length of time that is known to lie between two bounds, both included, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Interval {
    /// It was at least this long; never negative.
    pub lower_us: i64,
    /// It was at most this long; none when nothing bounds it.
    pub upper_us: Option<i64>,
}

/// How an interval compares with a limit ("at most this long").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Comparison {
    /// All of it is within the limit.
    Within,
    /// All of it is beyond the limit.
    Beyond,
    /// The limit lies inside: nothing can be said.
    Straddles,
}

impl Interval {
    /// An interval; a negative lower bound becomes 0, an upper bound below the lower one the same
    /// as that.
    pub fn new(lower_us: i64, upper_us: Option<i64>) -> Interval {
        let lower_us = lower_us.max(0);
        Interval {
            lower_us,
            upper_us: upper_us.map(|upper| upper.max(lower_us)),
        }
    }

    /// Compares with a limit; exactly the limit is within it.
    pub fn against(&self, limit: Duration) -> Comparison {
        let limit_us = micros(limit);
        if self.lower_us > limit_us {
            Comparison::Beyond
        } else if self.upper_us.is_some_and(|upper| upper <= limit_us) {
            Comparison::Within
        } else {
            Comparison::Straddles
        }
    }
}

impl fmt::Display for Interval {
    /// `9.52–9.58 s`, `20–61 ms`, `≥ 9.52 s`: milliseconds below one second. Rounded outwards, so
    /// that what is shown is never narrower than what is known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let in_seconds = self.upper_us.unwrap_or(self.lower_us) >= 1_000_000;
        let (step_us, unit) = if in_seconds {
            (10_000, "s")
        } else {
            (1_000, "ms")
        };
        let shown = |steps: i64| match in_seconds {
            true => format!("{}.{:02}", steps / 100, steps % 100),
            false => steps.to_string(),
        };
        let lower = self.lower_us.div_euclid(step_us);
        let Some(upper_us) = self.upper_us else {
            return write!(f, "≥ {} {unit}", shown(lower));
        };
        let upper = upper_us.div_euclid(step_us) + i64::from(upper_us.rem_euclid(step_us) > 0);
        match lower == upper {
            true => write!(f, "{} {unit}", shown(lower)),
            false => write!(f, "{}–{} {unit}", shown(lower), shown(upper)),
        }
    }
}

/// A run of failed samples, and what it says about the service: it went away between
/// `started_after` and `started_by`, and was back between `ended_after` and `ended_by`. All in
/// microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Outage {
    /// When the first failed sample was due.
    #[serde(rename = "first_failed_due_us")]
    pub first_failed_due: At,
    /// When the last failed sample was due.
    #[serde(rename = "last_failed_due_us")]
    pub last_failed_due: At,
    /// How many samples failed.
    pub failed: u64,
    /// The latest start among successes due before the run (s0); none when there was none.
    #[serde(rename = "started_after_us")]
    pub started_after: Option<At>,
    /// The end of the first failed sample.
    #[serde(rename = "started_by_us")]
    pub started_by: At,
    /// The start of the last failed sample; of the first run, when [`outages`] joined several.
    #[serde(rename = "ended_after_us")]
    pub ended_after: At,
    /// The earliest end among successes due after the run (s1); none when there was none.
    #[serde(rename = "ended_by_us")]
    pub ended_by: Option<At>,
    /// How long the service was away.
    pub length: Interval,
}

/// On which side nothing bounds an outage, so that it has no upper bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenSide {
    /// No success before it: it may have begun at any time.
    Start,
    /// No success after it: the service was not seen to come back.
    End,
    /// No success on either side.
    Both,
}

impl fmt::Display for OpenSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OpenSide::Start => "no success before it",
            OpenSide::End => "no success after it",
            OpenSide::Both => "no success at all",
        })
    }
}

impl Outage {
    /// The side on which nothing bounds it; none when both bounds are known.
    pub fn open_side(&self) -> Option<OpenSide> {
        match (self.started_after, self.ended_by) {
            (Some(_), Some(_)) => None,
            (None, Some(_)) => Some(OpenSide::Start),
            (Some(_), None) => Some(OpenSide::End),
            (None, None) => Some(OpenSide::Both),
        }
    }
}

/// The outages in these samples, in the order of time. Slow successes are latency, not outage.
///
/// Consecutive failures (by due time) are one outage. A run whose failures all began before the run
/// before it was known to have ended belongs to that one: when requests that waited the outage out
/// succeed in the end, failures due between and after them are no second outage, because until then
/// nothing had shown the service to be back. The lower bound of such an outage is that of its
/// longest run, as one of the slow successes may have been served between two runs.
pub fn outages(samples: &[Sample]) -> Vec<Outage> {
    let samples = by_due(samples);
    let latest_start = latest_start_before(&samples);
    let earliest_end = earliest_end_from(&samples);
    let mut found: Vec<Outage> = Vec::new();
    // Where the first run of the latest outage ended at the latest.
    let mut first_run_ended_by = None;
    let mut position = 0;
    for run in samples.chunk_by(|a, b| a.is_success() == b.is_success()) {
        let begin = position;
        position += run.len();
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            continue;
        };
        if first.is_success() {
            continue;
        }
        let s0 = latest_start.get(begin).copied().flatten();
        let s1 = earliest_end.get(position).copied().flatten();
        let run = one_run(first, last, run.len() as u64, (s0, s1));
        match found.last_mut() {
            Some(outage) if first_run_ended_by.is_some_and(|end| last.start <= end) => {
                extend(outage, &run);
            }
            _ => {
                first_run_ended_by = s1;
                found.push(run);
            }
        }
    }
    found
}

fn by_due(samples: &[Sample]) -> Vec<&Sample> {
    let mut sorted: Vec<&Sample> = samples.iter().collect();
    sorted.sort_by_key(|sample| (sample.due, sample.number));
    sorted
}

/// For each place, the latest start among the successes before it; one entry more than samples.
fn latest_start_before(samples: &[&Sample]) -> Vec<Option<At>> {
    let mut latest = None;
    let mut all = vec![latest];
    for sample in samples {
        if sample.is_success() {
            latest = latest.max(Some(sample.start));
        }
        all.push(latest);
    }
    all
}

/// For each place, the earliest end among the successes from it on; one entry more than samples.
fn earliest_end_from(samples: &[&Sample]) -> Vec<Option<At>> {
    let mut earliest: Option<At> = None;
    let mut all = vec![earliest];
    for sample in samples.iter().rev() {
        if sample.is_success() {
            earliest = Some(earliest.map_or(sample.end, |end| end.min(sample.end)));
        }
        all.push(earliest);
    }
    all.reverse();
    all
}

fn one_run(first: &Sample, last: &Sample, failed: u64, bounds: (Option<At>, Option<At>)) -> Outage {
    let (s0, s1) = bounds;
    // A failure that hung on until after the service was seen again says nothing later than that.
    let started_by = s1.map_or(first.end, |s1| first.end.min(s1));
    let ended_after = s0.map_or(last.start, |s0| last.start.max(s0));
    let upper_us = s0.zip(s1).map(|(s0, s1)| s1.us_since(s0));
    Outage {
        first_failed_due: first.due,
        last_failed_due: last.due,
        failed,
        started_after: s0,
        started_by,
        ended_after,
        ended_by: s1,
        length: Interval::new(last.start.us_since(first.end), upper_us),
    }
}

fn extend(outage: &mut Outage, run: &Outage) {
    outage.last_failed_due = run.last_failed_due;
    outage.failed += run.failed;
    // `ended_after` stays: from then on a slow success may have been served, and what failed later
    // may have lacked no more than a free connection.
    outage.ended_by = run.ended_by;
    let upper_us = outage
        .started_after
        .zip(run.ended_by)
        .map(|(s0, s1)| s1.us_since(s0));
    outage.length = Interval::new(outage.length.lower_us.max(run.length.lower_us), upper_us);
}

/// The time from the beginning of the first outage to the end of the last: how long it took until
/// the service was back for good, when it came and went. None when there was no outage.
pub fn hull(outages: &[Outage]) -> Option<Interval> {
    let first = outages
        .iter()
        .min_by_key(|outage| outage.first_failed_due)?;
    let last = outages.iter().max_by_key(|outage| outage.last_failed_due)?;
    let longest_us = outages.iter().map(|outage| outage.length.lower_us).max()?;
    let lower_us = last.ended_after.us_since(first.started_by).max(longest_us);
    let upper_us = first
        .started_after
        .zip(last.ended_by)
        .map(|(s0, s1)| s1.us_since(s0));
    Some(Interval::new(lower_us, upper_us))
}

/// Every outage longer than this is found, as long as probes are dispatched when they are due; our
/// own lateness adds to it. A shorter one may fall between two probes, or be waited out by one.
pub fn detectable(shape: &Shape) -> Duration {
    shape.spacing() + shape.limit()
}

/// When the service was back: after the last failure among the samples due at or after `since`, the
/// first answer came, and whatever was due until at least `settle` after it succeeded; the moment is
/// that answer. None while that is not so, and always when there are no samples.
///
/// Counted from the answer, not from when it was due: what waited for the whole outage and got its
/// answer then shows a service that has only just come back.
///
/// `samples` are all that are finished, from the first on. One that is still in flight ends the
/// stretch just before it: it may yet fail. When no sample failed at all, the moment is the end of
/// the first success after `since`; whether there was an outage is for [`outages`] to say.
pub fn service_back(samples: &[Sample], since: At, settle: Duration) -> Option<At> {
    let samples = by_due(samples);
    let failed = samples
        .iter()
        .rposition(|s| s.due >= since && !s.is_success());
    let begin = failed.map_or_else(|| samples.partition_point(|s| s.due < since), |at| at + 1);
    let stretch = samples.get(begin..)?;
    let first = stretch.first()?;
    // The one before must be finished, too: in flight, it could be a failure due after `since`.
    let before = begin.checked_sub(1).and_then(|at| samples.get(at));
    if first.number != before.map_or(0, |sample| sample.number + 1) {
        return None;
    }
    let unbroken = stretch.chunk_by(|a, b| b.number == a.number + 1).next()?;
    let back = unbroken.iter().map(|sample| sample.end).min()?;
    let last = unbroken.last()?;
    (last.due.us_since(back) >= micros(settle)).then_some(back)
}

/// When service was back for the first time after `since`: the due moment of the first of samples that went on
/// succeeding until at least `settle` after the first answer among them, after failures where there were any. What
/// fails after it is another outage.
pub fn first_back(samples: &[Sample], since: At, settle: Duration) -> Option<At> {
    let samples = by_due(samples);
    let after = samples.partition_point(|s| s.due < since);
    let mut stretch: Option<(At, At)> = None;
    let failed_at_all = samples.iter().skip(after).any(|s| !s.is_success());
    let mut failed = !failed_at_all;
    for sample in samples.iter().skip(after) {
        if !sample.is_success() {
            (stretch, failed) = (None, true);
            continue;
        }
        let (first, answer) = stretch.map_or((sample.due, sample.end), |(first, answer)| {
            (first, answer.min(sample.end))
        });
        stretch = Some((first, answer));
        if failed && sample.due.us_since(answer) >= micros(settle) {
            return Some(first);
        }
    }
    None
}

/// How long successes took from when they were due, so that our own queueing counts, in
/// microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// How many succeeded.
    pub successes: u64,
    /// Half of them took at most this long.
    pub p50_us: i64,
    /// 99 of 100 took at most this long.
    pub p99_us: i64,
    /// None took longer.
    pub max_us: i64,
}

/// The latency of the successes; none when nothing succeeded.
pub fn latency(samples: &[Sample]) -> Option<Latency> {
    let successes = samples.iter().filter(|sample| sample.is_success());
    let mut values: Vec<i64> = successes
        .map(|sample| sample.end.us_since(sample.due))
        .collect();
    values.sort_unstable();
    Some(Latency {
        successes: values.len() as u64,
        p50_us: percentile(&values, 50)?,
        p99_us: percentile(&values, 99)?,
        max_us: *values.last()?,
    })
}

/// A moment that is known to lie between two others, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Between {
    /// Not before this.
    #[serde(rename = "earliest_us")]
    pub earliest: At,
    /// Not after this.
    #[serde(rename = "latest_us")]
    pub latest: At,
}

/// Something that the system under test did, and who said so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Phase {
    /// What it did, in the words of that system: detected, promoted, writable, redundant again.
    pub name: String,
    /// When, on the client's clock; the width holds the uncertainty of the source's own clock.
    pub at: Between,
    /// Where that is known from.
    pub source: String,
}

/// The phase in which probes succeeded again after `zero`: after the last that failed, by the first success.
/// `source` is whose probes. None when none failed since, or they did not come back.
pub fn service_phase(name: &str, source: &str, outages: &[Outage], zero: At) -> Option<Phase> {
    let last = outages
        .iter()
        .rfind(|o| o.first_failed_due >= zero || o.started_by >= zero)?;
    let at = Between {
        earliest: last.ended_after,
        latest: last.ended_by?,
    };
    Some(Phase {
        name: name.to_owned(),
        at,
        source: source.to_owned(),
    })
}

/// The longest that the client could not write. Outages with less than `settle` between them are one:
/// service that goes away again so soon had not been back.
pub fn client_outage(outages: &[Outage], settle: Duration) -> Option<Interval> {
    let mut groups: Vec<Vec<Outage>> = Vec::new();
    for outage in outages {
        let back = groups
            .last()
            .and_then(|group| group.last())
            .map(|before| before.ended_by);
        let apart = back.map(|back| back.map(|at| outage.started_by.us_since(at)));
        match (apart, groups.last_mut()) {
            (Some(Some(apart_us)), _) if apart_us >= micros(settle) => {
                groups.push(vec![outage.clone()]);
            }
            (Some(_), Some(group)) => group.push(outage.clone()),
            _ => groups.push(vec![outage.clone()]),
        }
    }
    let spans = groups.iter().filter_map(|group| hull(group));
    spans.max_by_key(|span| (span.upper_us.unwrap_or(i64::MAX), span.lower_us))
}

#[cfg(test)]
mod tests;

/// Against generated ground truth: a service whose outages are known, seen through a simulated
/// client with standing connections, deadlines, reconnecting, and dispatch that comes late.
#[cfg(test)]
mod against_the_truth;
