//! Sample reports as pages: golden files, and what no page may hold.

use serde_json::{Value as Json, json};

use super::*;
use crate::report::{Chart, Curve, Figure};
use crate::verdict::{Gate, Measured, Outcome};

/// What a hostile server or instance may say.
const HOSTILE: &str = "</style></svg><script>alert(\"1\")</script>'\" onload=x \u{202e}\u{7}\u{0}";

fn from(report: Json) -> Report {
    serde_json::from_value(report).unwrap()
}

fn refused() -> Report {
    from(json!({
        "schema": "veza-report/1", "check": "pg-failover-check", "system": "formation default/0",
        "verdict": "refused", "exit_code": 1, "reason_id": "formation-unhealthy",
        "reason": "node-b is not healthy; nothing was touched", "next": "pg_autoctl show state",
        "started_at": "2026-01-02T03:04:05Z", "took_s": 0.42,
        "conditions": [{"name": "version", "value": "0.1.0"}],
        "feasibility": [], "fault": null, "client_outage": null, "outages": [], "phases": [],
        "events": [], "probes": null, "probe_runs": [], "ledger": null, "overlaps": [],
        "gates": [], "gates_off": [], "undo": [],
        "tables": [{"title": "Nodes", "columns": ["node", "health"],
            "rows": [["node-a", "good"], ["node-b", "bad"]]}],
        "notes": [],
    }))
}

fn run(first: i64, last: i64, count: u64, outcome: &str) -> Json {
    json!({"first_due_us": first, "last_due_us": last, "ended_us": last + 3_000, "count": count,
        "outcome": outcome})
}

fn event(at: i64, what: &str) -> Json {
    json!({"at": at, "what": what, "source": "monitor"})
}

/// A stop that was called at second 3, with everything that happens in ten seconds.
fn broken() -> Json {
    let mut report = serde_json::to_value(refused()).unwrap();
    let more = json!({
        "verdict": "pass", "exit_code": 0, "took_s": 12.4, "reason_id": "all-gates-held",
        "reason": "a client could not write for 6.00 to 6.05 s", "next": "nothing to do",
        "fault": {
            "plan": {"system": "formation default/0", "kind": "stop",
                "targets": [{"instance": "node-a", "init_pid": 7}], "ttl_s": 100,
                "undo": {"steps": [{"step": "start", "target": {"instance": "node-a", "init_pid": 7}}]},
                "notes": []},
            "called": 3_000_000, "returned": 3_700_000, "trouble": null,
            "evidence": {"at": 4_200_000, "target": "node-a gives no answer",
                "control": "node-b answers", "host": "node-a has no init process"}},
        "client_outage": {"lower_us": 6_000_000, "upper_us": 6_050_000},
        "outages": [{"first_failed_due_us": 3_100_000, "last_failed_due_us": 9_100_000,
            "failed": 301, "started_after_us": 3_080_000, "started_by_us": 3_101_000,
            "ended_after_us": 9_101_000, "ended_by_us": 9_130_000,
            "length": {"lower_us": 6_000_000, "upper_us": 6_050_000}}],
        "phases": [
            {"name": "detected", "at": {"earliest_us": 5_000_000, "latest_us": 5_000_100},
                "source": "monitor's event 3"},
            {"name": "redundant again", "at": {"earliest_us": 12_000_000, "latest_us": 12_300_000},
                "source": "monitor's view"}],
        "events": [event(3_900_000, "node-a is unhealthy"), event(5_000_000, "node-a is draining"),
            event(5_000_000, "node-b is promoted"), event(10_000_000, "healing: start node-a")],
        "probes": {"action": "one row written", "spacing_us": 20_000, "limit_us": 1_000_000,
            "due": 610, "succeeded": 309, "lateness_p50_us": 900, "lateness_p99_us": 1_500,
            "latency_p50_us": 3_000, "latency_p99_us": 20_000, "latency_max_us": 50_000,
            "failures": {"connection broken": 4, "no connection": 297}},
        "probe_runs": [run(0, 3_080_000, 155, "success"),
            run(3_100_000, 3_160_000, 4, "connection broken"),
            run(3_180_000, 9_100_000, 297, "no connection"),
            run(9_120_000, 12_180_000, 154, "success")],
        "ledger": {"acknowledged": 309, "failed": 297, "unknown": 4, "rows": 309, "lost": [],
            "recovered": [], "absent": [{"first": 155, "last": 158}], "phantoms": [],
            "duplicates": []},
        "gates": [
            Gate::at_most("rto", "time without writes", 60.0, "s",
                Some(Measured { lower: 6.0, upper: Some(6.05) })),
            Gate::at_most("lost-writes", "lost writes", 0.0, "writes", Some(Measured::exact(0.0)))],
        "undo": [{"step": "start node-a", "began": 10_000_000, "done": 10_600_000,
            "words": "node-a runs again"}],
    });
    let more = more.as_object().unwrap().clone();
    report.as_object_mut().unwrap().extend(more);
    report
}

fn passed() -> Report {
    from(broken())
}

/// The service never came back, two nodes took writes at once, and healing did not end.
fn failed() -> Report {
    let mut report = passed();
    report.verdict = "fail".to_owned();
    report.exit_code = 2;
    report.reason_id = "gate-missed".to_owned();
    report.reason = "a client could not write for at least 6.00 s".to_owned();
    let open = from({
        let mut open = broken();
        open["outages"][0]["ended_by_us"] = Json::Null;
        open["outages"][0]["length"]["upper_us"] = Json::Null;
        open["client_outage"]["upper_us"] = Json::Null;
        open["overlaps"] = json!([{"nodes": ["node-a", "node-b"], "earliest_us": 6_000_000,
            "latest_us": 6_400_000, "writes": 3, "losing": "node-a"}]);
        open
    });
    report.outages = open.outages;
    report.client_outage = open.client_outage;
    report.overlaps = open.overlaps;
    report.probe_runs.pop();
    report.undo[0].done = None;
    let measured = Some(Measured {
        lower: 6.0,
        upper: None,
    });
    report.gates[0] = Gate::at_most("rto", "time without writes", 5.0, "s", measured);
    report.figures = vec![Figure {
        id: "tps".to_owned(),
        title: "transactions per second".to_owned(),
        unit: "/s".to_owned(),
        rounds: vec![812.0, 820.0, 808.0],
    }];
    report.charts = vec![Chart {
        title: "Transactions".to_owned(),
        unit: "/s".to_owned(),
        curves: vec![Curve {
            name: "processed".to_owned(),
            points: vec![[1.0, 790.0], [2.0, 815.0], [3.0, 830.0]],
        }],
    }];
    report
}

#[test]
fn a_drill_that_passed() {
    insta::assert_snapshot!(render(&passed()).unwrap());
}

#[test]
fn a_drill_that_failed_with_an_open_outage() {
    insta::assert_snapshot!(render(&failed()).unwrap());
}

#[test]
fn a_run_that_touched_nothing() {
    insta::assert_snapshot!(render(&refused()).unwrap());
}

#[test]
fn a_page_needs_nothing_else() {
    for report in [passed(), failed(), refused()] {
        let page = render(&report).unwrap().to_lowercase();
        for word in [
            "http://", "https://", "src=", "<script", "url(", "@import", "<link", "<a ", " on",
        ] {
            // An attribute that begins with `on` runs a script; a word of a sentence does not.
            let found = match word {
                " on" => page.split('<').any(|tag| {
                    let tag = tag.split('>').next().unwrap_or_default();
                    let names = tag.split('"').step_by(2);
                    names.into_iter().any(|part| part.trim().starts_with("on"))
                }),
                _ => page.contains(word),
            };
            assert!(!found, "{word}");
        }
    }
}

#[test]
fn what_comes_from_instances_is_only_text() {
    let mut report = serde_json::to_value(failed()).unwrap();
    hostile(&mut report);
    let page = render(&from(report)).unwrap();
    assert_eq!(page.matches("</style>").count(), 1);
    assert!(!page.contains("<script"), "a script");
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    let clean = render(&failed()).unwrap();
    assert_eq!(page.matches("<svg").count(), clean.matches("<svg").count());
    for acting in ['\u{202e}', '\u{7}', '\u{0}'] {
        assert!(!page.contains(acting), "{acting:?}");
    }
    assert!(page.contains("[U+202E][U+0007][U+0000]"));
    // Every quote that ends an attribute is one of ours.
    assert!(!page.contains("\" onload"));
}

/// Puts hostile words behind every text that is not one of a closed list.
fn hostile(value: &mut Json) {
    match value {
        Json::Array(all) => all.iter_mut().for_each(hostile),
        Json::Object(fields) => {
            let closed = ["kind", "instance", "step", "protocol", "address", "bound"];
            for (name, value) in fields.iter_mut() {
                if name == "outcome" && value == "missed" || value == "held" {
                    continue;
                }
                if !closed.contains(&name.as_str()) || name == "step" && value == "start node-a" {
                    hostile(value);
                }
            }
        }
        Json::String(text) => text.push_str(HOSTILE),
        _ => {}
    }
}

#[test]
fn verdict_and_reason_come_first() {
    let page = render(&failed()).unwrap();
    let place = |word: &str| page.find(word).unwrap();
    let order = [
        "<title>pg-failover-check: FAIL</title>",
        "> FAIL</h1>",
        "gate-missed",
        "<strong>Next:",
        "<h2>TWO PRIMARIES",
        "<h2>Gates",
        "<h2>Time line",
        "<h2>Events",
    ];
    let places = order.map(place);
    assert!(places.is_sorted(), "{places:?}");
}

#[test]
fn sections_without_content_are_not_there() {
    let page = render(&refused()).unwrap();
    for section in [
        "Time line",
        "Gates",
        "Phases",
        "Events",
        "Fault",
        "Undo",
        "Client",
        "Writes",
    ] {
        assert!(!page.contains(&format!("<h2>{section}")), "{section}");
    }
    assert!(page.contains("<h2>Nodes</h2>"));
    assert!(!page.contains("<summary>Notes"));
}

#[test]
fn a_gate_that_was_off_is_told() {
    let mut report = refused();
    report.gates_off = from({
        let mut off = broken();
        off["gates_off"] = json!([{"id": "rto", "title": "time", "flag": "--read-only"}]);
        off
    })
    .gates_off;
    assert!(render(&report).unwrap().contains("not judged: --read-only"));
}

#[test]
fn thousands_of_probe_runs_and_events_are_bounded() {
    let mut report = passed();
    let success = report.probe_runs[0].clone();
    let failure = report.probe_runs[2].clone();
    report.probe_runs = (0..20_000_i64)
        .map(|n| {
            let mut run = if n % 2 == 0 { &success } else { &failure }.clone();
            (run.first_due_us, run.last_due_us) = (n * 600, n * 600);
            run
        })
        .collect();
    let one = report.events[0].clone();
    report.events = vec![one; 500];
    let page = render(&report).unwrap();
    assert!(page.matches("<rect").count() < 4_000);
    assert!(page.contains(">1–500</text>"));
}

#[test]
fn moments_that_no_run_has_draw_no_nonsense() {
    let mut report = passed();
    report.events[0].at = crate::clock::At(i64::MIN);
    report.phases[0].at.latest = crate::clock::At(i64::MAX);
    report.gates[0].limit = f64::INFINITY;
    report.gates[0].outcome = Outcome::Unclear;
    let drawn = time_line::drawing(&report).unwrap();
    assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
    render(&report).unwrap();
}

#[test]
fn it_is_saved_beside_the_others() {
    let folder = std::env::temp_dir().join(format!("veza-html-{}", std::process::id()));
    passed().save(&folder).unwrap();
    let saved = std::fs::read_to_string(folder.join("report.html"));
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(saved.unwrap(), render(&passed()).unwrap());
}

#[test]
fn a_control_run_draws_no_fault() {
    let mut report = passed();
    report.undo.clear();
    let fault = report.fault.as_mut().unwrap();
    fault.plan.kind = crate::fault::Kind::None;
    fault.plan.targets.clear();
    fault.evidence = None;
    let drawn = time_line::drawing(&report).unwrap();
    assert!(drawn.contains("nothing was broken"));
    assert!(!drawn.contains("cause"), "{drawn}");
}
