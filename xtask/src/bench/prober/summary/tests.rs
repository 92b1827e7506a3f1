//! Summaries of made-up scores.

use super::*;

fn probed(length_us: i64, detectable: bool, report: Option<Report>) -> Probed {
    Probed {
        kind: Kind::Refusing,
        length_us,
        detectable,
        until_served_us: Some(length_us + 20_000),
        report,
    }
}

fn report(lower_us: i64, upper_us: i64) -> Option<Report> {
    Some(Report {
        contains: true,
        lower_us,
        upper_us: Some(upper_us),
        start_width_us: Some(20_400),
        end_width_us: Some(20_500),
    })
}

fn summary(probed: Vec<Probed>, uncaused: u64) -> Summary {
    let observed = Observed {
        shape: Shape::default(),
        score: Score {
            probed,
            uncaused,
            repeated: 0,
        },
        lateness: None,
    };
    let cost = Cost {
        cpu_us: 200_000,
        wall_us: 20_000_000,
        probes: 1_000,
        failed: 0,
    };
    let settings = Settings {
        outages: 3,
        lanes: 1,
        seed: 1,
    };
    let polled = Polled {
        kind: Kind::Silent,
        length_us: 1_400_000,
        measured_us: Some(2_000_000),
    };
    Summary::new(settings, &[observed], vec![polled], cost)
}

fn good() -> Probed {
    probed(2_000_000, true, report(1_990_000, 2_031_000))
}

#[test]
fn a_promise_is_broken_by_each_thing_that_it_promises() {
    assert!(summary(vec![good(), probed(15_000, false, None)], 0).promises_kept());
    assert!(!summary(vec![good()], 1).promises_kept());
    assert!(!summary(vec![probed(2_000_000, true, None)], 0).promises_kept());
    let too_long = probed(2_000_000, true, report(2_051_000, 2_060_000));
    assert!(!summary(vec![too_long], 0).promises_kept());
    let too_short = probed(2_000_000, true, report(1_900_000, 2_019_999));
    assert!(!summary(vec![too_short], 0).promises_kept());
    let elsewhere = Report {
        contains: false,
        ..report(1_990_000, 2_060_000).unwrap()
    };
    let elsewhere = probed(2_000_000, true, Some(elsewhere));
    assert!(!summary(vec![elsewhere], 0).promises_kept());
}

#[test]
fn what_lies_outside_is_counted_with_the_farthest() {
    let outside = Outside::of([0, 3, 0, 9].into_iter());
    assert_eq!(
        outside,
        Outside {
            count: 2,
            max_us: 9
        }
    );
    assert_eq!(super::outside(&outside), "2, by up to 0.0");
    assert_eq!(super::outside(&Outside::of([0].into_iter())), "0");
}

#[test]
fn only_found_ones_have_a_width_and_only_short_ones_may_be_missed() {
    let all = [
        good(),
        probed(1_500_000, true, None),
        probed(30_000, false, report(0, 60_000)),
        probed(15_000, false, None),
    ];
    let of = Detectable::of(Kind::Refusing, &all);
    assert_eq!((of.count, of.found), (2, 1));
    assert_eq!((of.undetectable, of.undetectable_noticed), (2, 1));
    assert_eq!(of.width.map(|width| width.max_us), Some(41_000));
    assert_eq!(Detectable::of(Kind::Silent, &all).count, 0);
}

#[test]
fn both_ends_must_be_sharp() {
    let sharp = |end_width_us| {
        let mut one = good();
        if let Some(report) = &mut one.report {
            report.end_width_us = Some(end_width_us);
        }
        summary(vec![one], 0).probers[0].sharp_kinds()
    };
    assert_eq!(sharp(22_000), "refusing");
    assert_eq!(sharp(22_001), "none");
}

#[test]
fn tables_have_a_row_for_each_observer_and_kind() {
    let text = summary(vec![good()], 0).text();
    let lines: Vec<&str> = text.lines().collect();
    let has = |line: &str| {
        let squeeze = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            lines.iter().any(|other| squeeze(other) == line),
            "{line}\n{text}"
        );
    };
    has("| 20/1000/100 | all | 1 of 1 | 10.5 | 10.5 | 10.5 |");
    has("| poll loop, 1 s | silent | 1 of 1 | 600.0 | 600.0 | 600.0 |");
    has("| poll loop, 1 s | closing | 0 of 0 | - | - | - |");
    has("| 20/1000/100 | refusing | 1 of 1 | 0 | 0 | 41.0 | 41.0 | 20.4 | 20.5 | 0 of 0 |");
    assert!(text.contains("1.00 % of a core at 50 probes/s"), "{text}");
}

#[test]
fn machines_get_the_same_numbers() {
    let json = serde_json::to_value(summary(vec![good()], 0)).unwrap();
    assert_eq!(json["bench"], "prober");
    assert_eq!(json["probers"][0]["detectable"][0]["found"], 1);
    assert_eq!(json["probers"][0]["detectable_us"], 1_020_000);
    assert_eq!(json["poll_loop"][4]["error"]["p50_us"], 600_000);
    assert!(json.get("each").is_none());
}
