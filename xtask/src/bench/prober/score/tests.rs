//! Scores of made-up outages.

use veza_probe::outage::outages;
use veza_probe::prober::{Failure, FailureKind, Outcome, Sample};

use super::*;

const SPACING: i64 = 20_000;
const DETECTABLE: i64 = 120_000;

fn truth(start: i64, end: i64) -> Truth {
    Truth {
        start: At(start),
        end: At(end),
        kind: Kind::Refusing,
    }
}

/// Samples every 20 ms that take 1 ms, and fail when they are due in a stretch.
fn samples(failing: &[(i64, i64)]) -> Vec<Sample> {
    (0..500)
        .map(|number| {
            let due = number * SPACING;
            let fails = failing.iter().any(|(from, to)| (*from..*to).contains(&due));
            let failure = Failure {
                kind: FailureKind::Refused,
                text: String::new(),
            };
            Sample {
                number: number as u64,
                due: At(due),
                start: At(due),
                end: At(due + 1_000),
                outcome: match fails {
                    true => Outcome::Failure(failure),
                    false => Outcome::Success,
                },
            }
        })
        .collect()
}

fn served(samples: &[Sample]) -> Vec<At> {
    let good = samples.iter().filter(|sample| sample.is_success());
    good.map(|sample| sample.start).collect()
}

fn score(truths: &[Truth], failing: &[(i64, i64)]) -> Score {
    let samples = samples(failing);
    probed(truths, &outages(&samples), &served(&samples), DETECTABLE)
}

#[test]
fn an_outage_within_its_bounds_is_found() {
    let score = score(&[truth(1_990_500, 2_310_000)], &[(2_000_000, 2_310_000)]);
    let [one] = score.probed.as_slice() else {
        panic!("{score:?}");
    };
    let expected = Report {
        contains: true,
        // From the failure that ended at 2.001 to the one sent at 2.300; from 1.980 to 2.321.
        lower_us: 299_000,
        upper_us: Some(341_000),
        start_width_us: Some(21_000),
        end_width_us: Some(21_000),
    };
    assert_eq!(one.report, Some(expected));
    assert!(one.detectable);
    assert_eq!(one.until_served_us, Some(2_320_000 - 1_990_500));
    assert_eq!(
        (one.outside_service_us(), one.outside_client_us()),
        (Some(0), Some(0))
    );
    assert_eq!(one.error_us(), Some(500));
    assert_eq!((score.uncaused, score.repeated), (0, 0));
}

#[test]
fn a_client_that_reconnects_slowly_has_a_longer_outage_than_the_service() {
    let score = score(&[truth(1_999_900, 2_210_000)], &[(2_000_000, 2_300_000)]);
    let one = &score.probed[0];
    // At least 279 ms are reported, the service was away for 210.1 ms, the client for 300.1 ms.
    assert_eq!(one.outside_service_us(), Some(68_900));
    assert_eq!(one.outside_client_us(), Some(0));
}

#[test]
fn an_upper_bound_below_the_truth_lies_outside() {
    let score = score(&[truth(1_900_000, 2_400_000)], &[(2_000_000, 2_300_000)]);
    let one = &score.probed[0];
    assert_eq!(
        one.report.as_ref().map(|report| report.contains),
        Some(false)
    );
    // At most 321 + 20 ms are reported.
    assert_eq!(one.outside_service_us(), Some(500_000 - 321_000));
}

#[test]
fn what_was_not_reported_has_no_bounds() {
    let score = score(&[truth(2_001_000, 2_011_000)], &[]);
    let one = &score.probed[0];
    assert_eq!((one.detectable, &one.report), (false, &None));
    assert_eq!((one.error_us(), one.outside_client_us()), (None, None));
}

#[test]
fn reports_without_a_cause_and_repeated_ones_are_counted() {
    let failing = [
        (1_000_000, 1_100_000),
        (2_000_000, 2_300_000),
        (3_000_000, 3_040_000),
    ];
    let score = score(&[truth(1_990_500, 2_310_000)], &failing);
    assert_eq!((score.uncaused, score.repeated), (1, 1));
}

#[test]
fn exactly_the_detectable_length_is_not_yet_detectable() {
    for (length_us, detectable) in [(DETECTABLE, false), (DETECTABLE + 1, true)] {
        let score = score(&[truth(2_000_000, 2_000_000 + length_us)], &[]);
        assert_eq!(score.probed[0].detectable, detectable);
    }
}

fn polls(bad: &[i64]) -> Vec<Poll> {
    let poll = |second: i64| Poll {
        start: At(second * 1_000_000),
        end: At(second * 1_000_000 + 1_000),
        good: !bad.contains(&second),
    };
    (0..20).map(poll).collect()
}

#[test]
fn a_poll_loop_measures_whole_turns() {
    let truths = [truth(1_500_000, 1_600_000), truth(4_999_000, 6_100_000)];
    let polled = polled(&truths, &polls(&[5, 6]));
    let measured: Vec<Option<i64>> = polled.iter().map(|one| one.measured_us).collect();
    assert_eq!(measured, [None, Some(2_000_000)]);
    let errors: Vec<Option<i64>> = polled.iter().map(Polled::error_us).collect();
    assert_eq!(errors, [None, Some(2_000_000 - 1_101_000)]);
}

#[test]
fn a_poll_loop_that_never_sees_the_end_has_measured_nothing() {
    let all_bad: Vec<i64> = (5..20).collect();
    let polled = polled(&[truth(4_999_000, 90_000_000)], &polls(&all_bad));
    assert_eq!(polled[0].measured_us, None);
}

#[test]
fn spreads_are_by_nearest_rank() {
    let spread = Spread::of((1..=200).rev()).unwrap();
    assert_eq!(
        (spread.p50_us, spread.p99_us, spread.max_us),
        (100, 198, 200)
    );
    let one = Spread::of([7]).unwrap();
    assert_eq!((one.p50_us, one.p99_us, one.max_us), (7, 7, 7));
    assert_eq!(Spread::of([]), None);
}
