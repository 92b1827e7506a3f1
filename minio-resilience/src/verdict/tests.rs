//! What each gate and verdict of the check rests on.

use super::*;
use crate::cli::course::Act;

const PROMISES: Promises = Promises {
    read_outage_s: 15.0,
    service_s: 60.0,
    redundancy_s: 120.0,
};

fn between(lower: f64, upper: f64) -> Option<Measured> {
    Some(Measured {
        lower,
        upper: Some(upper),
    })
}

/// Two of four lost, as it should go.
fn good() -> Seen {
    Seen {
        experiment: Experiment {
            target: "minio-1".into(),
            evidence: true,
            ..Experiment::default()
        },
        promise: Some(Promise {
            reads: true,
            writes: false,
        }),
        writes_tried: true,
        read_outage_s: between(9.0, 10.0),
        reads_failed: true,
        failed_reads: Some(0),
        unread: Some(0),
        unread_after: Some(0),
        refusal_s: Some(0.1),
        taken: Some(0),
        odd_refusals: Some(0),
        phantoms: Some(0),
        odd_health: Some(0),
        service_s: between(6.0, 7.0),
        redundancy_s: between(7.0, 8.0),
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
fn an_outage_is_told_only_where_a_read_failed() {
    let sentence = |seen: &Seen| judge(seen, &gates(seen, &PROMISES)).reason;
    let told = sentence(&good());
    assert!(
        told.contains("lost: reads failed for 9.00 to 10.00 s, every"),
        "{told}"
    );
    let told = sentence(&Seen {
        read_outage_s: between(0.0, 5.05),
        reads_failed: false,
        ..good()
    });
    assert!(told.contains("lost: no read failed, every"), "{told}");
}

#[test]
fn what_was_healed_before_the_first_look_was_healed() {
    let whole = |written: usize, evidence: bool, replaced: usize| {
        with(|seen| {
            seen.experiment.evidence = evidence;
            seen.experiment.control_run = !evidence;
            seen.healing = Healing {
                act: Some(Act::Degraded),
                expected: 10,
                lacking_at_first: Some(0),
                lacking: Some(0),
                healed_s: between(0.0, 9.0),
                written,
                unwritten: Some(0),
                replaced: Some(replaced),
                ..Healing::default()
            };
        })
    };
    assert_eq!(whole(5, true, 0).0, Verdict::Pass);
    for vacuous in [whole(0, true, 0), whole(5, false, 0)] {
        assert_eq!(vacuous, (Verdict::Inconclusive, NOTHING_TO_HEAL.to_owned()));
    }
    // What is broken is told all the same.
    for written in [0, 5] {
        assert_eq!(
            whole(written, true, 1),
            (Verdict::Fail, "replaced-missed".to_owned())
        );
    }
}

type Time = fn(&mut Seen, Option<Measured>);

#[test]
fn times_at_below_and_above_their_limits() {
    assert_eq!(judged(&good()), (Verdict::Pass, "all-gates-held".into()));
    let cases: [(Time, f64, &str); 4] = [
        (|s, m| s.read_outage_s = m, 15.0, "read-outage-missed"),
        (|s, m| s.service_s = m, 60.0, "service-missed"),
        (|s, m| s.redundancy_s = m, 120.0, "redundancy-missed"),
        (
            |s, m| s.refusal_s = m.map(|m| m.lower),
            5.0,
            "refusal-missed",
        ),
    ];
    for (change, limit, reason_id) in cases {
        assert_eq!(
            with(|s| change(s, between(limit - 0.1, limit))).0,
            Verdict::Pass,
            "{reason_id}"
        );
        let missed = with(|s| change(s, between(limit + 0.1, limit + 0.2)));
        assert_eq!(missed, (Verdict::Fail, reason_id.into()));
        // Not known is never held.
        assert_eq!(
            with(|s| change(s, None)).0,
            Verdict::Inconclusive,
            "{reason_id}"
        );
    }
    let unclear = with(|s| s.read_outage_s = between(14.9, 15.1));
    assert_eq!(
        unclear,
        (Verdict::Inconclusive, "limit-inside-interval".into())
    );
}

type Count = fn(&mut Seen, Option<u64>);

#[test]
fn what_must_not_be_at_none_and_at_one() {
    let cases: [(Count, &str); 9] = [
        (|s, n| s.failed_reads = n, "failed-reads-missed"),
        (|s, n| s.unread = n, "unread-missed"),
        (|s, n| s.unread_after = n, "unread-after-missed"),
        (|s, n| s.taken = n, "taken-writes-missed"),
        (|s, n| s.odd_refusals = n, "odd-refusals-missed"),
        (|s, n| s.phantoms = n, "phantoms-missed"),
        (|s, n| s.odd_health = n.or(Some(0)), "health-missed"),
        (
            |s, n| s.wrong = vec!["x".to_owned(); usize::try_from(n.unwrap_or(0)).unwrap()],
            "wrong-bytes-missed",
        ),
        (
            |s, n| s.denied = vec!["x".to_owned(); usize::try_from(n.unwrap_or(0)).unwrap()],
            "denied-missed",
        ),
    ];
    for (change, reason_id) in cases {
        assert_eq!(with(|s| change(s, Some(0))).0, Verdict::Pass, "{reason_id}");
        assert_eq!(
            with(|s| change(s, Some(1))),
            (Verdict::Fail, reason_id.into())
        );
    }
    for (change, _) in &cases[..6] {
        assert_eq!(with(|s| change(s, None)).0, Verdict::Inconclusive);
    }
}

#[test]
fn without_read_quorum_nothing_may_be_served_and_no_outage_is_counted() {
    let lost = |served: u64| {
        let seen = Seen {
            promise: Some(Promise {
                reads: false,
                writes: false,
            }),
            read_outage_s: None,
            failed_reads: None,
            unread: Some(600 - served),
            refusal_s: Some(5.1),
            odd_refusals: Some(3),
            read_without: served,
            ..good()
        };
        judged(&seen)
    };
    assert_eq!(lost(0).0, Verdict::Pass);
    assert_eq!(lost(1), (Verdict::Fail, "served-missed".into()));
}

#[test]
fn with_write_quorum_no_refusal_is_asked_for() {
    let seen = Seen {
        promise: Some(Promise {
            reads: true,
            writes: true,
        }),
        writes_tried: false,
        refusal_s: None,
        taken: None,
        phantoms: None,
        odd_refusals: None,
        ..good()
    };
    assert_eq!(judged(&seen).0, Verdict::Pass);
}

#[test]
fn what_somebody_else_changed_proves_nothing_and_is_named() {
    let mut seen = good();
    seen.changed = vec!["p/read/1 through minio-2: written by somebody else".to_owned()];
    let judgement = judge(&seen, &gates(&seen, &PROMISES));
    assert_eq!(
        (judgement.verdict, judgement.reason_id.as_str()),
        (Verdict::Inconclusive, "changed-by-others")
    );
    assert!(
        judgement.reason.contains("p/read/1"),
        "{}",
        judgement.reason
    );
    seen.wrong = vec!["p/read/2".to_owned()];
    assert_eq!(judged(&seen).0, Verdict::Fail, "wrong bytes come first");
}

#[test]
fn what_proves_nothing_is_never_a_pass() {
    assert_eq!(
        with(|s| s.experiment.evidence = false),
        (Verdict::Inconclusive, "no-evidence".into())
    );
    assert_eq!(
        with(|s| s.experiment.blind = Some("late".into())),
        (Verdict::Inconclusive, "observer-blind".into())
    );
    assert_eq!(
        with(|s| s.cut = Some("late".into())),
        (Verdict::Inconclusive, "cut-short".into())
    );
    // That clients were not served for too long was seen, whatever was not done afterwards.
    let long = |s: &mut Seen| {
        s.cut = Some("late".into());
        s.read_outage_s = between(15.1, 99.0);
    };
    assert_eq!(with(long), (Verdict::Fail, "read-outage-missed".into()));
    let unproven = |s: &mut Seen| {
        long(s);
        s.experiment.evidence = false;
    };
    assert_eq!(with(unproven), (Verdict::Inconclusive, "cut-short".into()));
    assert_ne!(judged(&Seen::default()).0, Verdict::Pass);
    assert_ne!(judge(&good(), &[]).verdict, Verdict::Pass);
}

#[test]
fn a_control_run_must_show_no_outage() {
    let control = |outage_s| {
        let mut seen = Seen::default();
        (seen.experiment.control_run, seen.experiment.outage_s) = (true, outage_s);
        judged(&seen)
    };
    assert_eq!(control(None).0, Verdict::Pass);
    assert_eq!(
        control(between(0.1, 0.2)),
        (Verdict::Fail, "no-outage-missed".into())
    );
}

/// Looks at one node that stays up: what its two endpoints came to, one after the other; 0 is no answer.
fn looks(all: &[(u16, u16)]) -> Record {
    let health = |code| match code {
        0 => Err("no answer".to_owned()),
        code => Ok(Health {
            code,
            quorum: None,
            healing: 0,
            date_s: None,
            status: None,
            asked: At(0),
            answered: At(0),
        }),
    };
    let look = |(number, (cluster, read)): (usize, &(u16, u16))| Look {
        asked: At(number as i64 * 10 + 1),
        answered: At(number as i64 * 10 + 2),
        nodes: vec![Node {
            name: "minio-1".to_owned(),
            lives: true,
            cluster: health(*cluster),
            read: health(*read),
            serves: None,
        }],
        drives_online: None,
        drives: 4,
        s3_only: false,
    };
    Record {
        looks: all.iter().enumerate().map(look).collect(),
    }
}

#[test]
fn the_last_answer_of_each_health_endpoint_counts_and_none_at_all_is_odd() {
    let promise = Promise {
        reads: true,
        writes: false,
    };
    let odd = |all: &[(u16, u16)]| odd_health(&looks(all), promise, (At(0), At(1000)));
    assert_eq!(odd(&[]), None);
    assert_eq!(odd(&[(200, 503), (503, 200)]), Some(0));
    assert_eq!(
        odd(&[(503, 200), (0, 0)]),
        Some(0),
        "slower than a look, and right before"
    );
    assert_eq!(odd(&[(0, 200), (0, 200)]), Some(1), "never answered");
    assert_eq!(odd(&[(503, 200), (200, 200)]), Some(1));
    assert_eq!(odd(&[(503, 200), (200, 200), (0, 503)]), Some(2));
}
