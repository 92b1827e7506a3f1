//! Overlaps, fencing and first writes, from literals.

use super::Answer::{Absent, Refused, Took, Unacknowledged, Unasked};
use super::*;

/// Questions in milliseconds: when they began and ended, and the answer.
fn tenure(node: &str, asked: &[(i64, i64, Answer)]) -> Tenure {
    let question = |(began, ended, answer): &(i64, i64, Answer)| Asked {
        began: At(began * 1_000),
        ended: At(ended * 1_000),
        answer: *answer,
        words: String::new(),
    };
    Tenure {
        node: node.to_owned(),
        asked: asked.iter().map(question).collect(),
    }
}

/// A question every 100 ms from `from` on, each taking 50 ms.
fn every(from: i64, answers: &[Answer]) -> Vec<(i64, i64, Answer)> {
    let begins = (0..).map(|n| from + 100 * n);
    let each = begins.zip(answers).map(|(at, a)| (at, at + 50, *a));
    each.collect()
}

/// Overlaps of pg-a and pg-b: from, to, writes, and who is losing.
fn found(
    a: &[(i64, i64, Answer)],
    b: &[(i64, i64, Answer)],
) -> Vec<(i64, i64, usize, Option<String>)> {
    let all = overlaps(&[tenure("pg-a", a), tenure("pg-b", b)]);
    let short = |overlap: Overlap| {
        assert_eq!(overlap.nodes, ["pg-a", "pg-b"]);
        let (earliest, latest) = (overlap.earliest.0 / 1_000, overlap.latest.0 / 1_000);
        (earliest, latest, overlap.writes, overlap.losing)
    };
    all.into_iter().map(short).collect()
}

#[test]
fn a_handover_is_no_overlap_even_when_its_questions_overlap() {
    let b = every(330, &[Refused, Took, Took, Took]);
    assert_eq!(found(&every(0, &[Took, Took, Took, Refused]), &b), []);
    // The last write of A was under way when B took its first.
    let late = [(0, 50, Took), (100, 150, Took), (400, 520, Took)];
    assert_eq!(found(&late, &b), []);
    assert_eq!(found(&[], &b), []);
    assert_eq!(found(&[], &[]), []);
}

#[test]
fn a_handover_and_back_is_no_overlap_when_a_refusal_or_an_absence_lies_between() {
    for between in [Refused, Absent] {
        let a = every(0, &[Took, Took, between, between, Took, Took]);
        let b = every(230, &[Took, Took, Refused]);
        assert_eq!(found(&a, &b), [], "{between:?}");
    }
}

#[test]
fn answers_that_prove_nothing_end_no_span() {
    for between in [Unacknowledged, Unasked] {
        let a = every(0, &[Took, Took, between, between, Took, Took]);
        let b = every(230, &[Took, Took, Refused]);
        let losing = Some("pg-b".to_owned());
        assert_eq!(found(&a, &b), [(230, 380, 1, losing)], "{between:?}");
    }
}

#[test]
fn a_lone_late_write_inside_the_others_span_is_an_overlap() {
    let mut a = every(0, &[Took, Took, Refused, Refused, Took, Refused]);
    let b = every(220, &[Took, Took, Took, Took, Took, Took]);
    let losing = Some("pg-a".to_owned());
    assert_eq!(found(&a, &b), [(400, 450, 1, losing.clone())]);
    // Nothing says that A stopped; or that B went on after it had.
    a.truncate(5);
    assert_eq!(found(&a, &b), [(400, 450, 1, None)]);
    a.push((1_000, 1_050, Refused));
    assert_eq!(found(&a, &b), [(400, 450, 1, None)]);
    // Another one is another overlap.
    a.truncate(4);
    a.extend(every(400, &[Took, Refused, Took, Refused]));
    let both = [(400, 450, 1, losing), (600, 650, 1, None)];
    assert_eq!(found(&a, &b), both);
}

#[test]
fn a_late_write_at_the_edge_of_the_others_certain_part_counts_and_one_beyond_does_not() {
    let b = [(100, 200, Took), (300, 400, Took)];
    assert_eq!(found(&[(200, 300, Took)], &b), [(200, 300, 1, None)]);
    assert_eq!(found(&[(199, 300, Took)], &b), []);
    assert_eq!(found(&[(200, 301, Took)], &b), []);
}

#[test]
fn writes_in_turns_are_one_overlap() {
    let turns = [Took; 5];
    let (a, b) = (every(0, &turns), every(55, &turns));
    // From the first write of B, the first inside a span of A, to the last of A.
    assert_eq!(found(&a, &b), [(55, 450, 4, None)]);
    assert_eq!(found(&b, &a), [(55, 450, 4, None)]);
}

#[test]
fn spans_that_intersect_with_no_write_inside_are_an_overlap() {
    let a = [(0, 100, Took), (200, 300, Took)];
    let b = [(40, 110, Took), (190, 320, Took)];
    assert_eq!(found(&a, &b), [(110, 190, 1, None)]);
}

#[test]
fn over_a_longer_silence_than_the_return_takes_nothing_is_certain() {
    let limit = RETURN.as_millis() as i64;
    let b = [(200, 250, Took)];
    let back = |ended| {
        [
            (100, 150, Took),
            (900, 950, Unasked),
            (ended - 50, ended, Took),
        ]
    };
    assert_eq!(found(&back(100 + limit), &b), [(200, 250, 1, None)]);
    assert_eq!(found(&back(101 + limit), &b), []);
}

#[test]
fn a_node_that_was_frozen_and_writes_on_is_found_by_the_span_of_the_other() {
    let mut a = every(0, &[Took, Took]);
    a.extend([
        (200, 9_000, Unasked),
        (9_010, 9_060, Took),
        (9_110, 9_200, Refused),
    ]);
    let b = every(4_000, &[Took; 60]);
    let losing = Some("pg-a".to_owned());
    assert_eq!(found(&a, &b), [(9_010, 9_060, 1, losing)]);
}

#[test]
fn every_pair_is_compared_and_overlaps_are_in_the_order_of_time() {
    let all = [
        tenure("pg-a", &every(500, &[Took, Took, Took])),
        tenure("pg-b", &every(0, &[Took; 8])),
        tenure("pg-c", &every(60, &[Took, Took, Refused])),
    ];
    let pairs: Vec<[String; 2]> = overlaps(&all).into_iter().map(|o| o.nodes).collect();
    assert_eq!(pairs, [["pg-b", "pg-c"], ["pg-a", "pg-b"]]);
}

/// When a node was fenced after 1000 ms, in milliseconds.
fn fence(asked: &[(i64, i64, Answer)]) -> Result<(i64, i64), Option<i64>> {
    match fenced(&tenure("pg-a", asked), At(1_000_000)) {
        Fenced::Between { earliest, latest } => Ok((earliest.0 / 1_000, latest.0 / 1_000)),
        Fenced::No { last_seen } => Err(Some(last_seen.0 / 1_000)),
        Fenced::Unseen => Err(None),
    }
}

#[test]
fn a_node_is_fenced_after_its_last_write_and_by_its_first_refusal_or_absence() {
    for shut in [Refused, Absent] {
        let all = every(800, &[Took, Took, Took, Took, shut, shut]);
        assert_eq!(fence(&all), Ok((1_100, 1_250)));
        let hung = every(800, &[Took, Took, Took, Unacknowledged, Unasked, shut]);
        assert_eq!(fence(&hung), Ok((1_100, 1_350)));
    }
}

#[test]
fn without_a_write_after_the_fault_it_was_fenced_after_the_fault() {
    assert_eq!(
        fence(&every(800, &[Took, Took, Refused])),
        Ok((1_000, 1_050))
    );
    let unasked = every(800, &[Took, Took, Unasked, Unasked, Absent]);
    assert_eq!(fence(&unasked), Ok((1_000, 1_250)));
}

#[test]
fn of_the_questions_under_way_at_the_fault_only_a_refusal_counts() {
    for open in [Took, Unacknowledged] {
        assert_eq!(fence(&[(990, 1_100, open)]), Err(None));
        assert_eq!(fence(&[(1_000, 1_100, open)]), Err(Some(1_000)));
    }
    assert_eq!(fence(&[(990, 1_100, Refused)]), Ok((1_000, 1_100)));
    assert_eq!(fence(&[(900, 999, Refused)]), Err(None));
}

#[test]
fn nothing_informative_after_the_fault_is_unseen() {
    assert_eq!(fence(&[]), Err(None));
    assert_eq!(
        fence(&every(800, &[Took, Took, Unasked, Unasked])),
        Err(None)
    );
}

#[test]
fn a_node_that_still_takes_writes_at_the_end_is_not_fenced() {
    for open in [Took, Unacknowledged] {
        assert_eq!(fence(&every(1_000, &[Took, open])), Err(Some(1_100)));
        let back = every(1_000, &[Took, Refused, Absent, open, Unasked]);
        assert_eq!(fence(&back), Err(Some(1_300)));
    }
}

#[test]
fn a_write_after_a_refusal_begins_anew() {
    let back = every(
        1_000,
        &[Took, Absent, Took, Unacknowledged, Refused, Refused],
    );
    assert_eq!(fence(&back), Ok((1_300, 1_450)));
}

#[test]
fn an_unacknowledged_write_after_a_refusal_widens_the_bounds() {
    let slow = every(1_000, &[Took, Refused, Unacknowledged, Refused, Refused]);
    assert_eq!(fence(&slow), Ok((1_000, 1_350)));
}

#[test]
fn the_first_write_is_bounded_by_the_last_answer_that_was_none() {
    let first = |asked: &[(i64, i64, Answer)]| {
        let bounds = first_write(&tenure("pg-b", asked), At(1_000_000));
        bounds.map(|(earliest, latest)| (earliest.0 / 1_000, latest.0 / 1_000))
    };
    for shut in [Refused, Absent, Unacknowledged] {
        let all = every(900, &[Refused, shut, shut, Took, Took]);
        assert_eq!(first(&all), Some((1_100, 1_250)), "{shut:?}");
    }
    // What proves nothing bounds nothing.
    let unasked = every(1_000, &[Refused, Unasked, Unasked, Took]);
    assert_eq!(first(&unasked), Some((1_000, 1_350)));
    assert_eq!(first(&every(1_010, &[Unasked, Took])), Some((1_000, 1_160)));
    assert_eq!(first(&every(850, &[Refused, Took])), None);
    assert_eq!(
        first(&every(850, &[Refused, Took, Took])),
        Some((1_000, 1_100))
    );
    assert_eq!(first(&every(990, &[Took, Took])), Some((1_000, 1_140)));
    assert_eq!(first(&every(1_000, &[Refused, Unacknowledged])), None);
}

#[test]
fn everything_is_read_back_from_its_json() {
    let a = every(0, &[Took, Took, Took]);
    let all = [
        tenure("pg-a", &a),
        tenure("pg-b", &every(60, &[Took, Took])),
    ];
    let json = serde_json::to_value(&all[0].asked[0]).unwrap();
    let expected = serde_json::json!(
        {"began_us": 0, "ended_us": 50_000, "answer": "took", "words": ""}
    );
    assert_eq!(json, expected);
    let read: Vec<Tenure> = serde_json::from_value(serde_json::to_value(&all).unwrap()).unwrap();
    assert_eq!(read, all);
    let found = overlaps(&all);
    assert_eq!(found.len(), 1);
    let read: Vec<Overlap> = serde_json::from_value(serde_json::to_value(&found).unwrap()).unwrap();
    assert_eq!(read, found);
    let (earliest, latest) = (At(1), At(2));
    for (fenced, json) in [
        (
            Fenced::Between { earliest, latest },
            serde_json::json!({"between": {"earliest_us": 1, "latest_us": 2}}),
        ),
        (
            Fenced::No { last_seen: latest },
            serde_json::json!({"no": {"last_seen_us": 2}}),
        ),
        (Fenced::Unseen, serde_json::json!("unseen")),
    ] {
        assert_eq!(serde_json::to_value(fenced).unwrap(), json);
        assert_eq!(serde_json::from_value::<Fenced>(json).unwrap(), fenced);
    }
}
