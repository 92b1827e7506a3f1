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

use serde::{Deserialize, Serialize};

use crate::clock::{At, micros};
use crate::prober::{Sample, Shape, percentile};

/// A length of time that is known to lie between two bounds, both included, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// When the service was back: after the last failure among the samples due at or after `since`, all
/// samples due in a stretch of at least `settle` succeeded; the moment is the end of the first
/// success of that stretch. None while that is not so, and always when there are no samples.
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
    let last = unbroken.last()?;
    if last.due.us_since(first.due) < micros(settle) {
        return None;
    }
    unbroken.iter().map(|sample| sample.end).min()
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Between {
    /// Not before this.
    #[serde(rename = "earliest_us")]
    pub earliest: At,
    /// Not after this.
    #[serde(rename = "latest_us")]
    pub latest: At,
}

/// Something that the system under test did, and who said so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// What it did, in the words of that system: detected, promoted, writable, redundant again.
    pub name: String,
    /// When, on the client's clock; the width holds the uncertainty of the source's own clock.
    pub at: Between,
    /// Where that is known from.
    pub source: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prober::{Failure, FailureKind, Outcome};

    const MS: i64 = 1_000;

    /// A sample due every 20 ms, started when due; `took_ms` until its end.
    fn sample(number: u64, took_ms: i64, good: bool) -> Sample {
        let due = At(number as i64 * 20 * MS);
        let failure = Failure {
            kind: FailureKind::Deadline,
            text: "test".to_owned(),
        };
        let outcome = if good {
            Outcome::Success
        } else {
            Outcome::Failure(failure)
        };
        Sample {
            number,
            due,
            start: due,
            end: At(due.0 + took_ms * MS),
            outcome,
        }
    }

    /// `.` a success and `x` a failure, each of 1 ms, one every 20 ms.
    fn drawn(text: &str) -> Vec<Sample> {
        let draw = |(n, c): (usize, char)| sample(n as u64, 1, c == '.');
        text.chars().enumerate().map(draw).collect()
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn bounds_ms(outage: &Outage) -> (i64, Option<i64>) {
        (
            outage.length.lower_us / MS,
            outage.length.upper_us.map(|upper| upper / MS),
        )
    }

    #[test]
    fn without_failures_there_is_no_outage() {
        assert_eq!(outages(&[]), []);
        assert_eq!(outages(&drawn("....")), []);
        assert_eq!(hull(&[]), None);
    }

    #[test]
    fn one_run_is_bounded_by_the_successes_around_it() {
        let found = outages(&drawn("..xxx.."));
        assert_eq!(
            found,
            [Outage {
                first_failed_due: At(40 * MS),
                last_failed_due: At(80 * MS),
                failed: 3,
                started_after: Some(At(20 * MS)),
                started_by: At(41 * MS),
                ended_after: At(80 * MS),
                ended_by: Some(At(101 * MS)),
                length: Interval {
                    lower_us: 39 * MS,
                    upper_us: Some(81 * MS)
                },
            }]
        );
        assert_eq!(found[0].open_side(), None);
    }

    #[test]
    fn one_failed_sample_may_have_been_a_moment_only() {
        let found = outages(&drawn(".x."));
        assert_eq!(
            found.iter().map(bounds_ms).collect::<Vec<_>>(),
            [(0, Some(41))]
        );
    }

    #[test]
    fn a_side_without_success_is_open() {
        for (text, side, lower) in [
            ("xxx.", OpenSide::Start, 39),
            (".xxx", OpenSide::End, 39),
            ("xxx", OpenSide::Both, 39),
            ("x", OpenSide::Both, 0),
        ] {
            let found = outages(&drawn(text));
            assert_eq!(found.len(), 1, "{text}");
            assert_eq!(bounds_ms(&found[0]), (lower, None), "{text}");
            assert_eq!(found[0].open_side(), Some(side), "{text}");
        }
    }

    #[test]
    fn the_order_of_samples_does_not_matter() {
        let samples = drawn("..xxx..x.");
        let mut turned = samples.clone();
        turned.reverse();
        turned.swap(1, 4);
        assert_eq!(outages(&turned), outages(&samples));
        assert_eq!(
            service_back(&turned, At(0), Duration::ZERO),
            service_back(&samples, At(0), Duration::ZERO)
        );
    }

    #[test]
    fn a_slow_success_is_latency_and_no_outage() {
        let samples = [sample(0, 1, true), sample(1, 900, true), sample(2, 1, true)];
        assert_eq!(outages(&samples), []);
        let latency = latency(&samples).unwrap();
        assert_eq!(
            (latency.successes, latency.p50_us, latency.max_us),
            (3, MS, 900 * MS)
        );
    }

    #[test]
    fn bounds_come_from_all_successes_not_only_the_neighbours() {
        // The neighbour after the run waits long, the one after it not: back at 81 ms, not at 960.
        let mut samples = drawn("..x...");
        samples[3].end = At(960 * MS);
        assert_eq!(outages(&samples)[0].ended_by, Some(At(81 * MS)));
    }

    #[test]
    fn failures_that_hang_on_into_the_return_keep_the_bounds_in_order() {
        // Lost requests end at their deadline, long after the service was seen again.
        let mut samples = drawn(".xx...");
        samples[1].end = At(1_020 * MS);
        samples[2].end = At(1_040 * MS);
        let found = outages(&samples);
        assert_eq!(bounds_ms(&found[0]), (0, Some(61)));
        assert_eq!(found[0].started_by, At(61 * MS));
        assert_eq!(found[0].ended_after, At(40 * MS));
    }

    #[test]
    fn requests_that_waited_the_outage_out_do_not_cut_it_in_two() {
        // A stall until 200 ms: 60 and 80 ms wait for it, at 100 to 180 ms no connection is free.
        let mut samples = drawn(".xx..xxxxx..");
        samples[1].end = At(95 * MS);
        samples[2].end = At(98 * MS);
        samples[3].end = At(201 * MS);
        samples[4].end = At(202 * MS);
        let found = outages(&samples);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].failed, 7);
        assert_eq!(
            (found[0].started_after, found[0].ended_by),
            (Some(At(0)), Some(At(201 * MS)))
        );
        // Only the longest run is sure to have been without service all through.
        assert_eq!(bounds_ms(&found[0]), (79, Some(201)));
        // Had one of them come back before the next failure, there would be two.
        samples[3].end = At(99 * MS);
        assert_eq!(outages(&samples).len(), 2);
    }

    #[test]
    fn the_hull_reaches_from_the_first_to_the_last() {
        let found = outages(&drawn("..x..xx.x.."));
        assert_eq!(found.len(), 3);
        let whole = Interval {
            lower_us: 119 * MS,
            upper_us: Some(161 * MS),
        };
        assert_eq!(hull(&found), Some(whole));
        let open = hull(&outages(&drawn("..x..xx")));
        assert_eq!(
            open,
            Some(Interval {
                lower_us: 79 * MS,
                upper_us: None
            })
        );
        let one = outages(&drawn(".xxx."));
        assert_eq!(hull(&one), Some(one[0].length));
    }

    #[test]
    fn an_interval_is_compared_with_a_limit() {
        let interval = Interval::new(9_000, Some(10_000));
        let against = |us| interval.against(Duration::from_micros(us));
        assert_eq!(against(10_000), Comparison::Within);
        assert_eq!(against(9_999), Comparison::Straddles);
        assert_eq!(against(9_000), Comparison::Straddles);
        assert_eq!(against(8_999), Comparison::Beyond);
        let open = Interval::new(9_000, None);
        assert_eq!(open.against(Duration::MAX), Comparison::Straddles);
        assert_eq!(
            open.against(Duration::from_micros(8_999)),
            Comparison::Beyond
        );
        let point = Interval::new(5, Some(5));
        assert_eq!(point.against(Duration::from_micros(5)), Comparison::Within);
    }

    #[test]
    fn an_interval_shows_rounded_outwards() {
        for (lower, upper, shown) in [
            (9_529_999, Some(9_570_001), "9.52–9.58 s"),
            (9_520_000, None, "≥ 9.52 s"),
            (20_900, Some(60_100), "20–61 ms"),
            (0, Some(999_999), "0–1000 ms"),
            (20_000, Some(1_000_000), "0.02–1.00 s"),
            (9_520_000, Some(9_520_000), "9.52 s"),
            (999_999, None, "≥ 999 ms"),
        ] {
            assert_eq!(Interval::new(lower, upper).to_string(), shown);
        }
        assert_eq!(
            Interval::new(-5, Some(-9)),
            Interval {
                lower_us: 0,
                upper_us: Some(0)
            }
        );
    }

    #[test]
    fn service_is_back_after_a_settled_stretch() {
        let back = |text, settle| service_back(&drawn(text), At(0), ms(settle));
        assert_eq!(back("..xx....", 60), Some(At(81 * MS)));
        assert_eq!(back("..xx....", 61), None);
        assert_eq!(back("..xx....x", 0), None);
        assert_eq!(back("..xx..x...", 40), Some(At(141 * MS)));
        assert_eq!(back(".....", 80), Some(At(MS)));
        assert_eq!(back("xxx", 0), None);
        assert_eq!(back("xx.", 0), Some(At(41 * MS)));
        // Failures due before `since` are another story.
        let since = At(41 * MS);
        assert_eq!(
            service_back(&drawn(".xx..."), since, ms(40)),
            Some(At(61 * MS))
        );
    }

    #[test]
    fn no_samples_are_never_service_back() {
        assert_eq!(service_back(&[], At(0), Duration::ZERO), None);
        assert_eq!(
            service_back(&drawn("...."), At(61 * MS), Duration::ZERO),
            None
        );
        assert_eq!(
            service_back(&drawn("...."), At(i64::MAX), Duration::ZERO),
            None
        );
    }

    #[test]
    fn what_is_in_flight_is_not_yet_a_success() {
        let without = |text: &str, missing: u64| {
            let mut samples = drawn(text);
            samples.retain(|sample| sample.number != missing);
            service_back(&samples, At(0), ms(60))
        };
        assert_eq!(without("..xx....", 4), None, "just after the last failure");
        assert_eq!(without("..xx.......", 6), None, "in the stretch, too early");
        assert_eq!(
            without("..xx.......", 9),
            Some(At(81 * MS)),
            "after a stretch that is enough"
        );
        assert_eq!(without("........", 0), None, "the first of all");
    }

    #[test]
    fn service_back_and_outages_agree_on_the_end() {
        // The first by due time waited; the second was served first.
        let mut samples = drawn(".xx.....");
        samples[3].end = At(130 * MS);
        let back = service_back(&samples, At(0), ms(80));
        assert_eq!(back, Some(At(81 * MS)));
        assert_eq!(back, outages(&samples)[0].ended_by);
    }

    #[test]
    fn latency_counts_from_when_a_probe_was_due() {
        assert_eq!(latency(&drawn("xxx")), None);
        let mut late = sample(0, 5, true);
        late.start = At(3 * MS);
        assert_eq!(latency(&[late]).map(|latency| latency.max_us), Some(5 * MS));
    }

    #[test]
    fn an_outage_and_a_phase_carry_their_units() {
        let text = serde_json::to_string(&outages(&drawn(".x."))).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"[{"first_failed_due_us":20000,"last_failed_due_us":20000,"failed":1,"#,
                r#""started_after_us":0,"started_by_us":21000,"ended_after_us":20000,"#,
                r#""ended_by_us":41000,"length":{"lower_us":0,"upper_us":41000}}]"#
            )
        );
        let at = Between {
            earliest: At(1),
            latest: At(2),
        };
        let phase = Phase {
            name: "promoted".into(),
            at,
            source: "monitor".into(),
        };
        assert_eq!(
            serde_json::to_string(&phase).unwrap(),
            r#"{"name":"promoted","at":{"earliest_us":1,"latest_us":2},"source":"monitor"}"#
        );
    }
}

/// Against generated ground truth: a service whose outages are known, seen through a simulated
/// client with standing connections, deadlines, reconnecting, and dispatch that comes late.
#[cfg(test)]
mod against_the_truth {
    use std::cell::Cell;
    use std::collections::{BTreeMap, VecDeque};

    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestError, TestRunner};

    use super::*;
    use crate::prober::{Failure, FailureKind, Outcome};

    /// What the service does while it is away.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Mode {
        /// Answers everything with an error.
        Refusing,
        /// Frozen: goes on where it was when it is over.
        Stalling,
        /// Drops what reaches it and what it sends.
        Losing,
        /// All connections break when it begins; new ones are refused.
        Breaking,
        /// Takes connections, and lets actions wait until it is over.
        Waiting,
    }

    /// A true outage, `[start, end)` in microseconds.
    #[derive(Clone, Copy, Debug)]
    struct Truth {
        start: i64,
        end: i64,
        mode: Mode,
    }

    /// A service and its client; all times in microseconds.
    #[derive(Clone, Debug)]
    struct World {
        spacing: i64,
        limit: i64,
        connect_limit: i64,
        reconnect_every: i64,
        connections: i64,
        /// Probes are dispatched up to this late; below the spacing.
        late_max: i64,
        /// Whether single requests may take long without an outage.
        slow: bool,
        probes: i64,
        /// In the order of time, with gaps between them.
        truths: Vec<Truth>,
        seed: u64,
    }

    type Answer = Result<(), FailureKind>;

    enum Event {
        Dispatch(u64),
        Answered(u64, i64, i64, Answer),
        Connect,
        /// When the server took the connection; none when it did not.
        Connected(Option<i64>),
    }

    struct Client<'a> {
        world: &'a World,
        /// By time and order of planning.
        events: BTreeMap<(i64, u64), Event>,
        planned: u64,
        random: u64,
        /// When the server took each connection that is not in use.
        idle: VecDeque<i64>,
        alive: i64,
        connecting: bool,
        last_attempt: i64,
        slow_until: i64,
        samples: Vec<Sample>,
    }

    impl World {
        /// The longest usual latency: full pools always have a connection free, even if one of them
        /// waits for a slow answer. So without an outage nothing fails.
        fn usual_max(&self) -> i64 {
            let serving = self.connections - i64::from(self.may_be_slow());
            (self.spacing * serving - self.late_max - 1)
                .min(2 * self.spacing)
                .min(self.limit / 2)
        }

        fn may_be_slow(&self) -> bool {
            self.slow && self.connections >= 3
        }

        fn detectable(&self) -> i64 {
            self.spacing + self.limit + self.late_max
        }

        /// How long after an outage the client may still fail because of it: what hangs must end,
        /// what is dead must be noticed, and all connections made again.
        fn tail(&self) -> i64 {
            let refill = self.reconnect_every + 2 * self.usual_max();
            let notice = (self.connections + 2) * (self.spacing + self.late_max);
            self.limit.max(self.connect_limit) + notice + self.connections * refill
        }

        fn truth_at(&self, at: i64) -> Option<&Truth> {
            self.truths
                .iter()
                .find(|truth| (truth.start..truth.end).contains(&at))
        }

        /// The end of an action that was sent at `start` on a connection that the server took at
        /// `made`, and takes `there` to the server and `back` from it.
        fn act(&self, start: i64, made: i64, there: i64, back: i64) -> (i64, Answer) {
            let deadline = start + self.limit;
            match self.act_without_limit(start, made, there, back) {
                Some((end, answer)) if end <= deadline => (end, answer),
                _ => (deadline, Err(FailureKind::Deadline)),
            }
        }

        fn act_without_limit(
            &self,
            start: i64,
            made: i64,
            there: i64,
            back: i64,
        ) -> Option<(i64, Answer)> {
            let breaks = |truth: &&Truth| truth.mode == Mode::Breaking && truth.start > made;
            let broken = self
                .truths
                .iter()
                .find(breaks)
                .map_or(i64::MAX, |truth| truth.start);
            if broken <= start {
                return Some((start + 100, Err(FailureKind::Broken)));
            }
            let mut at = start + there;
            while let Some(truth) = self.truth_at(at) {
                match truth.mode {
                    Mode::Stalling | Mode::Waiting => at = truth.end,
                    Mode::Losing => return None,
                    Mode::Refusing => return Some((at + back, Err(FailureKind::Refused))),
                    Mode::Breaking => return Some((broken.min(at), Err(FailureKind::Broken))),
                }
            }
            let mut end = at + back;
            for truth in self.truths.iter().filter(|truth| truth.start > at) {
                match truth.mode {
                    Mode::Stalling if truth.start < end => end += truth.end - truth.start,
                    Mode::Losing if truth.start < end => return None,
                    _ => {}
                }
            }
            if broken < end {
                return Some((broken, Err(FailureKind::Broken)));
            }
            Some((end, Ok(())))
        }

        /// The end of an attempt to connect, and when the server took it.
        fn connect(&self, start: i64, there: i64, back: i64) -> (i64, Option<i64>) {
            let mut at = start + there;
            while let Some(truth) = self.truth_at(at) {
                match truth.mode {
                    Mode::Stalling => at = truth.end,
                    Mode::Waiting => break,
                    Mode::Losing => return (start + self.connect_limit, None),
                    Mode::Refusing | Mode::Breaking => return (at + back, None),
                }
            }
            let limit = start + self.connect_limit;
            if at + back <= limit {
                (at + back, Some(at))
            } else {
                (limit, None)
            }
        }

        fn samples(&self) -> Vec<Sample> {
            let mut client = Client {
                world: self,
                events: BTreeMap::new(),
                planned: 0,
                random: self.seed,
                // Before the first probe all connections stand.
                idle: (0..self.connections).map(|_| -1).collect(),
                alive: self.connections,
                connecting: false,
                last_attempt: i64::MIN / 2,
                slow_until: 0,
                samples: Vec::new(),
            };
            let mut start = 0;
            for number in 0..self.probes {
                start = start.max(number * self.spacing + client.up_to(self.late_max));
                client.plan(start, Event::Dispatch(number as u64));
            }
            while let Some(((now, _), event)) = client.events.pop_first() {
                client.happen(now, &event);
            }
            client.samples
        }
    }

    impl Client<'_> {
        /// A number from 0 to `max`, by splitmix64.
        fn up_to(&mut self, max: i64) -> i64 {
            self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = self.random;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((z ^ (z >> 31)) % (max as u64 + 1)) as i64
        }

        fn plan(&mut self, at: i64, event: Event) {
            self.planned += 1;
            self.events.insert((at, self.planned), event);
        }

        fn record(&mut self, number: u64, start: i64, end: i64, answer: Answer) {
            let due = At(number as i64 * self.world.spacing);
            let outcome = match answer {
                Ok(()) => Outcome::Success,
                Err(kind) => Outcome::Failure(Failure {
                    kind,
                    text: String::new(),
                }),
            };
            self.samples.push(Sample {
                number,
                due,
                start: At(start),
                end: At(end),
                outcome,
            });
        }

        fn happen(&mut self, now: i64, event: &Event) {
            match *event {
                Event::Dispatch(number) => self.dispatch(now, number),
                Event::Answered(number, start, made, answer) => {
                    match answer {
                        Ok(()) => self.idle.push_back(made),
                        Err(_) => self.alive -= 1,
                    }
                    self.record(number, start, now, answer);
                }
                Event::Connect => {
                    self.last_attempt = now;
                    let half = self.world.usual_max() / 2;
                    let (there, back) = (self.up_to(half), self.up_to(half));
                    let (end, taken) = self.world.connect(now, there, back);
                    self.plan(end, Event::Connected(taken));
                    return;
                }
                Event::Connected(taken) => {
                    self.connecting = false;
                    self.alive += i64::from(taken.is_some());
                    self.idle.extend(taken);
                }
            }
            let is_over = (self.samples.len() as i64) == self.world.probes;
            if self.alive < self.world.connections && !self.connecting && !is_over {
                self.connecting = true;
                self.plan(
                    now.max(self.last_attempt + self.world.reconnect_every),
                    Event::Connect,
                );
            }
        }

        fn dispatch(&mut self, now: i64, number: u64) {
            let Some(made) = self.idle.pop_front() else {
                self.record(number, now, now, Err(FailureKind::NoConnection));
                return;
            };
            let usual = self.world.usual_max();
            let is_slow = self.world.may_be_slow() && now >= self.slow_until && self.up_to(9) == 0;
            let longest = if is_slow {
                self.world.limit * 9 / 10
            } else {
                usual
            };
            let latency = self.up_to(longest.max(usual));
            let there = self.up_to(latency);
            let (end, answer) = self.world.act(now, made, there, latency - there);
            if is_slow {
                self.slow_until = end;
            }
            self.plan(end, Event::Answered(number, now, made, answer));
        }
    }

    /// Lengths are drawn in thousandths of what they are compared with, so that they shrink.
    fn worlds() -> impl Strategy<Value = World> {
        let mode = prop_oneof![
            Just(Mode::Refusing),
            Just(Mode::Stalling),
            Just(Mode::Losing),
            Just(Mode::Breaking),
            Just(Mode::Waiting),
        ];
        // Gap in spacings, length in detectable lengths.
        let gap = prop_oneof![1..3_000_i64, 3_000..120_000_i64];
        let length = prop_oneof![1..1_000_i64, 950..1_100_i64, 1_000..4_000_i64];
        let truths = prop::collection::vec((gap, length, mode), 0..5);
        let rhythm = (5_000..50_000_i64, 1_000..12_000_i64, 0..900_i64);
        let pool = (1..=6_i64, 500..3_000_i64, 1_000..6_000_i64);
        (rhythm, pool, truths, 0..80_i64, any::<bool>(), any::<u64>()).prop_map(
            |((spacing, limit, late), (connections, connect, every), drawn, rest, slow, seed)| {
                let limit = spacing * limit / 1_000;
                let mut world = World {
                    spacing,
                    limit,
                    connect_limit: limit * connect / 1_000,
                    reconnect_every: spacing * every / 1_000,
                    connections,
                    late_max: spacing * late / 1_000,
                    slow,
                    probes: 0,
                    truths: Vec::new(),
                    seed,
                };
                let mut at = 3 * spacing;
                for (gap, length, mode) in drawn {
                    let start = at + spacing * gap / 1_000;
                    at = start + (world.detectable() * length / 1_000).max(1);
                    world.truths.push(Truth {
                        start,
                        end: at,
                        mode,
                    });
                }
                world.probes = at / spacing + rest;
                world
            },
        )
    }

    fn contains(outage: &Outage, truth: &Truth) -> bool {
        outage.started_after.is_none_or(|s0| s0.0 <= truth.start)
            && outage.ended_by.is_none_or(|s1| s1.0 >= truth.end)
    }

    /// When the client sent the first action that succeeded after an outage: it can't know of an
    /// earlier return of the service.
    fn known_end(samples: &[Sample], truth: &Truth) -> i64 {
        let after = samples
            .iter()
            .filter(|s| s.is_success() && s.start.0 >= truth.end);
        after.map(|sample| sample.start.0).min().unwrap_or(i64::MAX)
    }

    /// The claims of this module about one detectable outage; returns whether it stands alone.
    fn check_detectable(
        world: &World,
        samples: &[Sample],
        found: &[Outage],
        truth: &Truth,
    ) -> Result<bool, TestCaseError> {
        let outage = found.iter().find(|outage| contains(outage, truth));
        prop_assert!(outage.is_some(), "{truth:?} was not found in {found:#?}");
        let Some(outage) = outage else {
            return Ok(false);
        };
        // Never back while it lasts, on what has finished by then; and never before its end.
        let by_then = |sample: &&Sample| sample.end.0 < truth.end;
        let finished: Vec<Sample> = samples.iter().filter(by_then).cloned().collect();
        prop_assert_eq!(
            service_back(&finished, At(truth.start), Duration::ZERO),
            None
        );
        let back = service_back(samples, At(truth.start), Duration::ZERO);
        prop_assert!(
            back.is_none_or(|back| back.0 >= truth.end),
            "{back:?} within {truth:?}"
        );
        let tail = world.tail();
        let s0 = outage.started_after.map_or(i64::MIN, |at| at.0);
        let s1 = outage.ended_by.map_or(i64::MAX, |at| at.0);
        let touches = |other: &&Truth| other.start <= s1 && other.end + tail >= s0;
        let touched: Vec<&Truth> = world.truths.iter().filter(touches).collect();
        let (first, last) = (touched[0], touched[touched.len() - 1]);
        let longest = known_end(samples, last).saturating_sub(first.start);
        prop_assert!(
            outage.length.lower_us <= longest,
            "{outage:?} against {touched:?}"
        );
        if touched.len() > 1 {
            return Ok(false);
        }
        // Alone, so each bound is about this one.
        let known_end = known_end(samples, truth);
        prop_assert!(
            outage.started_by.0 >= truth.start,
            "{outage:?} against {truth:?}"
        );
        prop_assert!(
            outage.ended_after.0 <= known_end,
            "{outage:?} against {truth:?}"
        );
        prop_assert!(
            outage
                .length
                .upper_us
                .is_none_or(|us| us >= truth.end - truth.start)
        );
        // What a client can know is not late, unless the next outage or the end of probing is near.
        let calm = truth.end..=truth.end + tail;
        let is_calm = !world.truths.iter().any(|other| calm.contains(&other.start))
            && samples
                .last()
                .is_some_and(|sample| !calm.contains(&sample.start.0));
        prop_assert!(
            !is_calm || calm.contains(&known_end),
            "{known_end} is late for {truth:?}"
        );
        Ok(true)
    }

    fn check_hull(found: &[Outage]) -> Result<(), TestCaseError> {
        let whole = hull(found);
        prop_assert_eq!(whole.is_none(), found.is_empty());
        for (whole, outage) in whole.iter().cycle().zip(found) {
            prop_assert!(whole.lower_us >= outage.length.lower_us);
            prop_assert!(whole.upper_us.is_none_or(|upper| upper >= whole.lower_us));
            // An upper bound of the whole is one of each part.
            let part = outage.length.upper_us;
            prop_assert!(
                whole
                    .upper_us
                    .is_none_or(|us| part.is_some_and(|part| part <= us))
            );
        }
        Ok(())
    }

    /// Checks a world; returns how many detectable outages it had, and how many of them alone.
    fn check(world: &World) -> Result<(u64, u64), TestCaseError> {
        let samples = world.samples();
        prop_assert_eq!(samples.len() as i64, world.probes);
        let found = outages(&samples);
        for outage in &found {
            let Interval { lower_us, upper_us } = outage.length;
            prop_assert!(lower_us >= 0 && upper_us.is_none_or(|upper| lower_us <= upper));
            prop_assert!(outage.failed > 0 && outage.first_failed_due <= outage.last_failed_due);
            prop_assert!(
                outage
                    .started_after
                    .is_none_or(|s0| s0 <= outage.started_by)
            );
            prop_assert!(outage.ended_by.is_none_or(|s1| s1 >= outage.ended_after));
        }
        let failed = samples.iter().filter(|sample| !sample.is_success()).count() as u64;
        prop_assert_eq!(
            found.iter().map(|outage| outage.failed).sum::<u64>(),
            failed
        );
        // Nothing fails without an outage, and so none is reported.
        for sample in samples.iter().filter(|sample| !sample.is_success()) {
            let caused = |truth: &Truth| {
                truth.start <= sample.end.0 && sample.start.0 <= truth.end + world.tail()
            };
            prop_assert!(world.truths.iter().any(caused), "{sample:?} has no cause");
        }
        let mut sorted = samples;
        sorted.sort_by_key(|sample| sample.number);
        let last_start = sorted.last().map_or(i64::MIN, |sample| sample.start.0);
        let (mut detectable, mut alone) = (0, 0);
        for truth in &world.truths {
            let is_inside = truth.end <= last_start;
            if is_inside && truth.end - truth.start > world.detectable() {
                detectable += 1;
                alone += u64::from(check_detectable(world, &sorted, &found, truth)?);
            }
        }
        check_hull(&found)?;
        Ok((detectable, alone))
    }

    #[test]
    fn detectable_outages_are_found_and_lie_inside_their_bounds() {
        let cases = 2_500;
        let config = Config {
            cases,
            failure_persistence: None,
            ..Config::default()
        };
        let seen = Cell::new((0, 0, 0));
        let run = TestRunner::new(config).run(&worlds(), |world| {
            let (detectable, alone) = check(&world)?;
            let (worlds, all, singles) = seen.get();
            let is_quiet = u64::from(world.truths.is_empty());
            seen.set((worlds + is_quiet, all + detectable, singles + alone));
            Ok(())
        });
        match run {
            Ok(()) => {}
            Err(TestError::Fail(reason, world)) => panic!("{reason}\n{world:#?}"),
            Err(error) => panic!("{error}"),
        }
        // The worlds are not empty of what is claimed about them.
        let (quiet, detectable, alone) = seen.get();
        assert!(
            quiet >= 100 && detectable >= 500 && alone >= 100,
            "{:?}",
            seen.get()
        );
    }
}
