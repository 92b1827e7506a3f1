//! Reports as real drills make them, for the tests of everything that writes or reads one.

use std::net::SocketAddr;

use super::{Condition, Event, GateOff, ProbeRun, Probes, Report, Table};
use crate::clock::{At, Clock};
use crate::fault::{Evidence, Fault, HealedStep, Kind, Plan, Target, Undo, UndoStep};
use crate::instance::InstanceName;
use crate::ledger::{Ledger, Range};
use crate::outage::{Between, Interval, Outage, Phase};
use crate::pulse::{Protocol, Pulse};
use crate::verdict::{Gate, Judgement, Measured, Verdict};

/// The instance that the samples break.
const TARGET: &str = "pgaf-primary";

/// A failover within its promise.
pub(crate) fn passed() -> Report {
    let judgement = Judgement::new(
        Verdict::Pass,
        "all-gates-held",
        "a client could not write for 9.40 to 9.45 s after pgaf-primary was broken; the formation was \
         whole again 2.60 to 2.71 s after the heal; no acknowledged write was lost",
        "nothing to do",
    );
    let mut report = drilled(&judgement, (3_764_128, 13_163_260), (9_399_132, 9_448_119));
    report.gates = vec![
        rto(9.399_132, 9.448_119),
        redundancy(2.602_5, Some(2.713)),
        counted(
            "lost-writes",
            "acknowledged writes that are not there at the end",
        ),
        counted(
            "phantom-writes",
            "refused writes that are there, or writes that are there twice",
        ),
        counted(
            "two-primaries",
            "writes that one node took while another one did, too",
        ),
    ];
    report.phases.push(phase(
        "redundant again",
        (17_787_553, 17_897_999),
        "monitor's view of all nodes",
    ));
    report.ledger = Some(Ledger {
        acknowledged: 493,
        failed: 467,
        unknown: 4,
        rows: 493,
        lost: Vec::new(),
        recovered: Vec::new(),
        absent: vec![Range {
            first: 157,
            last: 160,
        }],
        phantoms: Vec::new(),
        duplicates: Vec::new(),
    });
    report.took_s = 19.945_311;
    report
}

/// A failover that took too long, and a formation that was not whole when the watch ended; nothing
/// was written, so the gates of writes were off.
pub(crate) fn failed() -> Report {
    let judgement = Judgement::new(
        Verdict::Fail,
        "rto-missed",
        "a client could not write for 71.04 to 71.09 s after pgaf-primary was broken, 60 s were promised",
        "docs/runbooks/pg-failover-check.md",
    );
    let times = (3_764_128, 74_806_128);
    let mut report = drilled(&judgement, times, (71_042_000, 71_091_500));
    report.gates = vec![rto(71.042, 71.091_5), redundancy(118.9, None)];
    report.gates_off = vec![
        off(
            "lost-writes",
            "acknowledged writes that are not there at the end",
        ),
        off(
            "phantom-writes",
            "refused writes that are there, or writes that are there twice",
        ),
        off(
            "two-primaries",
            "writes that one node took while another one did, too",
        ),
    ];
    report.took_s = 198.25;
    report
}

/// A formation that was not whole, so that nothing was broken.
pub(crate) fn refused() -> Report {
    let judgement = Judgement::new(
        Verdict::Refused,
        "formation-not-whole",
        "pgaf-replica is not healthy: a drill on one leg is an outage",
        "incus --project veza-lab list",
    );
    let mut report = begun(&judgement);
    report.tables = vec![nodes("Nodes", "bad")];
    report.notes = vec!["nothing was touched".to_owned()];
    report.took_s = 0.412;
    report
}

/// What every report has.
fn begun(judgement: &Judgement) -> Report {
    let mut report = Report::new("pg-failover-check", &Clock::start(), judgement);
    "formation default/0 in project veza-lab".clone_into(&mut report.system);
    "2026-01-15T02:30:00.384998779Z".clone_into(&mut report.started_at);
    let condition = |(name, value): (&str, &str)| Condition {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let conditions = [
        ("version", "0.1.0"),
        ("vantage", "the host of this tool, directly to the nodes"),
        ("PostgreSQL", "17.12"),
        ("primary's synchronous_commit", "on"),
    ];
    report.conditions = conditions.map(condition).to_vec();
    report
}

/// What every report of a drill has: one outage between two moments, within bounds, and what was seen
/// around it.
fn drilled(judgement: &Judgement, (from, to): (i64, i64), bounds_us: (i64, i64)) -> Report {
    let mut report = begun(judgement);
    report.feasibility = vec![
        "best case 8.0 s = detected 2.0 s + primary_demote_timeout 6.0 s".to_owned(),
        "target 60.0 s".to_owned(),
    ];
    report.fault = Some(fault());
    let length = Interval::new(bounds_us.0, Some(bounds_us.1));
    report.client_outage = Some(length);
    report.outages = vec![Outage {
        first_failed_due: At(from - 2_439),
        last_failed_due: At(to - 1_571),
        failed: 471,
        started_after: Some(At(from - 20_528)),
        started_by: At(from),
        ended_after: At(to),
        ended_by: Some(At(to + 28_459)),
        length,
    }];
    report.phases = vec![
        phase("detected", (6_576_492, 6_576_642), "monitor's event 92"),
        phase("promoted", (to - 35_691, to - 35_541), "monitor's event 99"),
        phase("writable", (to, to + 28_459), "client"),
    ];
    report.events = vec![Event {
        at: At(5_480_963),
        what: "pgaf-primary is unhealthy".to_owned(),
        source: "monitor's event 90".to_owned(),
    }];
    report.probes = Some(probes());
    report.probe_runs = vec![
        run((0, from - 22_439), 189, "success"),
        run((from - 2_439, to - 1_571), 471, "no connection"),
        run((to + 18_429, to + 6_098_429), 304, "success"),
    ];
    report.undo = vec![HealedStep {
        step: "start pgaf-primary".to_owned(),
        began: At(to + 2_000_000),
        done: Some(At(to + 2_700_000)),
        words: "pgaf-primary runs again, init process 2440".to_owned(),
    }];
    report.tables = vec![nodes("Nodes before", "good"), nodes("Nodes after", "good")];
    report.notes = vec!["pgaf-primary has a new postmaster".to_owned()];
    report
}

fn fault() -> Fault {
    let target = Target {
        instance: InstanceName::new(TARGET).unwrap(),
        init_pid: 29_123,
    };
    let pulse = Pulse {
        from: None,
        name: TARGET.to_owned(),
        address: SocketAddr::from(([198, 18, 0, 12], 5432)),
        protocol: Protocol::Postgres,
    };
    let start = UndoStep::Start {
        target: target.clone(),
    };
    Fault {
        plan: Plan {
            system: "formation default/0 in project veza-lab".to_owned(),
            kind: Kind::Stop,
            targets: vec![target],
            later: Vec::new(),
            ttl_s: 105,
            undo: Undo {
                steps: vec![start, UndoStep::Answers { pulse }],
            },
            notes: Vec::new(),
        },
        called: At(3_668_579),
        returned: At(4_437_610),
        trouble: None,
        evidence: Some(Evidence {
            at: At(4_939_396),
            target: "pgaf-primary gives no protocol answer (no answer within 0.5 s)".to_owned(),
            control: "pgaf-replica answers ('S' to the request for TLS)".to_owned(),
            host: Some("pgaf-primary has no init process".to_owned()),
        }),
        later: Vec::new(),
    }
}

fn probes() -> Probes {
    Probes {
        action: "one row written and committed".to_owned(),
        spacing_us: 20_000,
        limit_us: 1_000_000,
        due: 964,
        succeeded: 493,
        lateness_p50_us: 1_512,
        lateness_p99_us: 2_987,
        latency_p50_us: Some(3_104),
        latency_p99_us: Some(18_112),
        latency_max_us: Some(22_604),
        failures: [("no connection".to_owned(), 471)].into(),
    }
}

fn run((first, last): (i64, i64), count: u64, outcome: &str) -> ProbeRun {
    ProbeRun {
        first_due_us: first,
        last_due_us: last,
        ended_us: last + 3_104,
        count,
        outcome: outcome.to_owned(),
    }
}

fn phase(name: &str, (earliest, latest): (i64, i64), source: &str) -> Phase {
    Phase {
        name: name.to_owned(),
        at: Between {
            earliest: At(earliest),
            latest: At(latest),
        },
        source: source.to_owned(),
    }
}

fn nodes(title: &str, health: &str) -> Table {
    let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
    Table {
        title: title.to_owned(),
        columns: row(["node", "reported", "health"]),
        rows: vec![
            row(["pgaf-primary", "primary", "good"]),
            row(["pgaf-replica", "secondary", health]),
        ],
    }
}

fn rto(lower: f64, upper: f64) -> Gate {
    let measured = Measured {
        lower,
        upper: Some(upper),
    };
    let title = "time in which a client could not write";
    Gate::at_most("rto", title, 60.0, "s", Some(measured))
}

fn redundancy(lower: f64, upper: Option<f64>) -> Gate {
    let title = "time until the formation was whole after the heal";
    let measured = Some(Measured { lower, upper });
    Gate::at_most("redundancy", title, 120.0, "s", measured)
}

fn counted(id: &str, title: &str) -> Gate {
    Gate::at_most(id, title, 0.0, "writes", Some(Measured::exact(0.0)))
}

fn off(id: &str, title: &str) -> GateOff {
    GateOff {
        id: id.to_owned(),
        title: title.to_owned(),
        flag: "--read-only".to_owned(),
    }
}
