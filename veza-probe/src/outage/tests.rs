//! Edge cases of outages, one by one.

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
    // An answer takes 1 ms, and the settle time begins with it.
    assert_eq!(back("..xx....", 59), Some(At(81 * MS)));
    assert_eq!(back("..xx....", 60), None);
    assert_eq!(back("..xx....x", 0), None);
    assert_eq!(back("..xx..x...", 39), Some(At(141 * MS)));
    assert_eq!(back(".....", 79), Some(At(MS)));
    assert_eq!(back("xxx", 0), None);
    assert_eq!(back("xx..", 0), Some(At(41 * MS)));
    // Failures due before `since` are another story.
    let since = At(41 * MS);
    assert_eq!(
        service_back(&drawn(".xx..."), since, ms(39)),
        Some(At(61 * MS))
    );
}

#[test]
fn what_waited_for_the_outage_to_end_settles_nothing() {
    // Due at 60 to 120 ms, all of them answered at 130 ms: service is back since then.
    let mut samples = drawn("..x.............");
    for sample in &mut samples[3..7] {
        sample.end = At(130 * MS);
    }
    let back = |samples: &[Sample]| service_back(samples, At(0), ms(100));
    assert_eq!(back(&samples[..12]), None);
    assert_eq!(back(&samples), Some(At(130 * MS)));
    assert_eq!(first_back(&samples[..12], At(0), ms(100)), None);
    assert_eq!(first_back(&samples, At(0), ms(100)), Some(At(60 * MS)));
    // One that fails just after the first answers belongs to the same outage.
    samples[8] = sample(8, 1, false);
    assert_eq!(first_back(&samples, At(0), ms(100)), Some(At(180 * MS)));
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
        service_back(&samples, At(0), ms(59))
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
    let back = service_back(&samples, At(0), ms(59));
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

/// Two failed probes, in microseconds.
fn failed(from: i64, to: i64) -> Outage {
    Outage {
        first_failed_due: At(from),
        last_failed_due: At(to),
        failed: 2,
        started_after: Some(At(from - 10)),
        started_by: At(from + 10),
        ended_after: At(to),
        ended_by: Some(At(to + 20)),
        length: Interval::new(to - from - 10, Some(to - from + 30)),
    }
}

#[test]
fn the_longest_outage_counts_and_flapping_is_one() {
    let settle = Duration::from_micros(1000);
    assert_eq!(client_outage(&[], settle), None);
    let apart = [failed(100, 500), failed(5000, 5100)];
    assert_eq!(
        client_outage(&apart, settle),
        Some(Interval::new(390, Some(430)))
    );
    let flapping = [failed(100, 500), failed(900, 1300)];
    assert_eq!(
        client_outage(&flapping, settle),
        Some(Interval::new(1190, Some(1230)))
    );
    let mut open = failed(5000, 5100);
    open.ended_by = None;
    let worst = client_outage(&[failed(100, 900), open], settle);
    assert_eq!(worst.map(|span| span.upper_us), Some(None));
}

#[test]
fn service_is_back_for_the_first_time_after_the_failures() {
    let back = |text: &str| first_back(&drawn(text), At(40 * MS), ms(59)).map(|at| at.0 / MS);
    // Due 40 ms and later counts; the fourth of four in a row is due 59 ms after the answer to the first.
    assert_eq!(back("..xxx......"), Some(100));
    assert_eq!(back("......"), Some(40), "nothing failed");
    assert_eq!(back("..xxx..x...."), Some(160), "it went again too soon");
    assert_eq!(
        back("..xxx....xx...."),
        Some(100),
        "what fails later is another outage"
    );
    assert_eq!(back("...x..."), None, "not for long enough");
    assert_eq!(
        back("..........xx...."),
        Some(240),
        "before the failures it was not back"
    );
}
