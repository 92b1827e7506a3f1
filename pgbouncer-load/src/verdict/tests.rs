//! Every gate at, below and above its limit, and the cases in which pgbench's own words mislead.

use veza_probe::clock::Signal;

use super::*;

fn promises() -> Promises {
    Promises {
        clients: 500,
        seconds: 30,
        ..Promises::default()
    }
}

fn good() -> Seen {
    Seen {
        code: Some(0),
        clients: Some(500),
        lasted_s: Some(30.0),
        processed: Some(20_000),
        failed: Some(0),
        tps: Some(700.0),
        clients_seen: Some(500),
        complaints: Some(0),
        p99_ms: Some(900.0),
        maxwait_s: Some(1.5),
        ..Seen::default()
    }
}

fn judged(promises: &Promises, rounds: &[Seen]) -> Judgement {
    judge(promises, rounds, &gates(promises, rounds), None)
}

fn came_to(change: fn(&mut Seen)) -> (Verdict, String) {
    let mut seen = good();
    change(&mut seen);
    let judgement = judged(&promises(), &[good(), seen]);
    (judgement.verdict, judgement.reason_id)
}

#[test]
fn a_good_run_passes_and_no_run_proves_nothing() {
    assert_eq!(judged(&promises(), &[good()]).verdict, Verdict::Pass);
    assert_eq!(judged(&promises(), &[]).verdict, Verdict::Inconclusive);
}

#[test]
fn zero_failed_is_not_enough() {
    let missed = |id: &str| (Verdict::Fail, format!("{id}-missed"));
    // Backends terminated: exit code 2, `0 failed`, and a line of error for each.
    let terminated = came_to(|s| {
        s.code = Some(2);
        s.client_errors = 3;
    });
    assert_eq!(terminated, missed("client-errors"));
    // Too many clients: exit code 1 and no result block at all.
    let refused = came_to(|s| {
        *s = Seen {
            code: Some(1),
            connection_errors: 2,
            complaints: Some(0),
            ..Seen::default()
        };
    });
    assert_eq!(refused, missed("connection-errors"));
    // Serialization failures: exit code 0 and no word on standard error.
    assert_eq!(came_to(|s| s.failed = Some(9888)), missed("failed"));
    assert_eq!(came_to(|s| s.code = Some(2)), missed("exit-status"));
    assert_eq!(came_to(|s| s.processed = Some(0)), missed("processed"));
    assert_eq!(came_to(|s| s.complaints = Some(1)), missed("pooler-errors"));
}

#[test]
fn as_many_and_as_long_as_was_asked_for() {
    let missed = |id: &str| (Verdict::Fail, format!("{id}-missed"));
    let pass = (Verdict::Pass, "all-gates-held".to_owned());
    assert_eq!(came_to(|s| s.clients = Some(499)), missed("clients"));
    assert_eq!(came_to(|s| s.clients_seen = Some(475)), pass);
    assert_eq!(
        came_to(|s| s.clients_seen = Some(474)),
        missed("clients-seen")
    );
    assert_eq!(came_to(|s| s.lasted_s = Some(29.9)), missed("duration"));
    assert_eq!(came_to(|s| s.lasted_s = Some(30.1)), pass);
}

#[test]
fn what_was_not_read_is_inconclusive() {
    for unread in [
        came_to(|s| s.processed = None),
        came_to(|s| s.failed = None),
        came_to(|s| s.clients_seen = None),
        came_to(|s| s.code = None),
    ] {
        assert_eq!(unread.0, Verdict::Inconclusive, "{unread:?}");
    }
    let nonsense = came_to(|s| {
        *s = Seen {
            code: Some(0),
            complaints: Some(0),
            clients_seen: Some(0),
            unread: Some("there is no line `duration:`".into()),
            ..Seen::default()
        };
    });
    assert_eq!(
        nonsense,
        (Verdict::Inconclusive, "result-unreadable".to_owned())
    );
}

#[test]
fn a_log_that_can_not_be_read_is_no_gate() {
    let mut seen = good();
    seen.complaints = None;
    let all = gates(&promises(), &[seen]);
    assert!(all.iter().all(|gate| gate.id != "pooler-errors"));
}

#[test]
fn limits_that_were_asked_for() {
    let with = |change: fn(&mut Promises)| {
        let mut promises = promises();
        change(&mut promises);
        judged(&promises, &[good()]).reason_id
    };
    let held = "all-gates-held";
    assert_eq!(with(|p| p.p99_max_ms = Some(900.0)), held);
    assert_eq!(with(|p| p.p99_max_ms = Some(899.9)), "p99-missed");
    assert_eq!(with(|p| p.tps_min = Some(700.0)), held);
    assert_eq!(with(|p| p.tps_min = Some(700.1)), "tps-missed");
    assert_eq!(with(|p| p.maxwait_max_s = Some(1.5)), held);
    assert_eq!(with(|p| p.maxwait_max_s = Some(1.4)), "maxwait-missed");
}

#[test]
fn some_failures_may_be_allowed() {
    let mut promises = promises();
    (promises.max_failed, promises.max_connection_errors) = (10, 2);
    let mut seen = good();
    (seen.failed, seen.connection_errors) = (Some(10), 2);
    assert_eq!(judged(&promises, &[seen.clone()]).verdict, Verdict::Pass);
    seen.failed = Some(11);
    assert_eq!(judged(&promises, &[seen]).reason_id, "failed-missed");
}

#[test]
fn a_regression_is_told_from_noise() {
    let against = |earlier: &[f64], now: &[f64]| {
        let mut promises = promises();
        promises.earlier = Some((earlier.to_vec(), 10.0));
        let rounds: Vec<Seen> = now
            .iter()
            .map(|tps| Seen {
                tps: Some(*tps),
                ..good()
            })
            .collect();
        let all = gates(&promises, &rounds);
        all.last().unwrap().outcome
    };
    assert_eq!(against(&[700.0, 710.0], &[690.0, 700.0]), Outcome::Held);
    assert_eq!(against(&[700.0, 710.0], &[800.0]), Outcome::Held);
    assert_eq!(against(&[700.0, 710.0], &[500.0, 600.0]), Outcome::Missed);
    // The rounds lie further apart than what is to be told.
    assert_eq!(against(&[600.0, 800.0], &[650.0, 700.0]), Outcome::Unclear);
    assert_eq!(against(&[], &[700.0]), Outcome::Unclear);
    assert_eq!(against(&[100.0], &[90.0]), Outcome::Held);
    assert_eq!(against(&[100.0], &[89.0]), Outcome::Missed);
}

#[test]
fn what_cut_it_off_decides() {
    let cut = |cut: Cut| {
        let promises = promises();
        let judgement = judge(&promises, &[], &[], Some(&cut));
        (judgement.verdict, exit_code(&judgement))
    };
    let signal = Signal::Interrupt;
    assert_eq!(
        cut(Cut::Stopped(signal)),
        (Verdict::Interrupted(signal), 130)
    );
    assert_eq!(cut(Cut::OthersWait("x".into())), (Verdict::Inconclusive, 5));
    assert_eq!(cut(Cut::TooLong(9)), (Verdict::Fail, 1));
    assert_eq!(cut(Cut::Lost("x".into())), (Verdict::Inconclusive, 5));
    assert_eq!(cut(Cut::Left("x".into())), (Verdict::NotUndone, 4));
}

#[test]
fn exit_codes_of_the_script_before() {
    let code = |verdict, id| exit_code(&Judgement::new(verdict, id, "", ""));
    assert_eq!(code(Verdict::Pass, "all-gates-held"), 0);
    assert_eq!(code(Verdict::Fail, "failed-missed"), 1);
    assert_eq!(code(Verdict::Refused, "not-enough-places"), 1);
    assert_eq!(code(Verdict::Refused, UNREACHABLE), 2);
    assert_eq!(code(Verdict::Refused, "credentials-refused"), 2);
    assert_eq!(code(Verdict::MissingTool, "no-pgbench"), 3);
    assert_eq!(code(Verdict::Inconclusive, "gate-unclear"), 5);
    assert_eq!(code(Verdict::Usage, "bad-arguments"), 64);
    assert_eq!(code(Verdict::Internal, "bug"), 70);
}
