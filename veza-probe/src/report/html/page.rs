//! What stands on the page, as texts: the template only sets them. Pure.

use serde::Serialize;

use super::super::text::{number, value};
use super::super::{Figure, Report, Table};
use super::{chart, gate_bar, time_line};
use crate::clock::At;
use crate::fault::{Evidence, Fault};
use crate::ledger;
use crate::outage::Outage;
use crate::verdict::{Bound, Gate, Outcome};

/// Everything that the template shows.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    /// The act, with what it came to, of a part of the page.
    act: Option<[String; 2]>,
    check: String,
    system: String,
    verdict: String,
    mark: &'static str,
    class: &'static str,
    exit_code: u8,
    reason_id: String,
    reason: String,
    next: String,
    schema: String,
    started_at: String,
    took: String,
    gates: Vec<GateRow>,
    gates_off: Vec<[String; 3]>,
    /// Name, value, value of each round, what it is.
    figures: Vec<[String; 4]>,
    charts: Vec<ChartPart>,
    time_line: Option<String>,
    /// What the seconds of all tables are counted from.
    zero: &'static str,
    fault: Vec<[String; 2]>,
    client: Vec<[String; 2]>,
    /// In seconds: from, to, length; and failed probes.
    outages: Vec<[String; 4]>,
    overlaps: Vec<String>,
    /// Name, from, to, source.
    phases: Vec<[String; 4]>,
    /// Moment, what, source.
    events: Vec<[String; 3]>,
    ledger: Option<LedgerTable>,
    undo: Vec<UndoRow>,
    tables: Vec<Table>,
    feasibility: Vec<String>,
    conditions: Vec<[String; 2]>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct GateRow {
    id: String,
    title: String,
    limit: String,
    measured: String,
    outcome: String,
    mark: &'static str,
    class: &'static str,
    bar: String,
}

#[derive(Debug, Serialize)]
struct ChartPart {
    title: String,
    drawing: String,
}

#[derive(Debug, Serialize)]
struct LedgerTable {
    summary: String,
    /// Class, what it means, how many numbers, which.
    rows: Vec<[String; 4]>,
}

#[derive(Debug, Serialize)]
struct UndoRow {
    step: String,
    done: bool,
    span: String,
    words: String,
}

/// The report itself, and each of its acts.
pub(super) fn parts(report: &Report) -> Vec<Page> {
    let acts = report.acts.iter().enumerate().map(|(number, act)| {
        let mut part = page(act);
        // No two drawings on one page may have the same names.
        let own = format!("act-{number}-time-line-");
        part.time_line = part
            .time_line
            .map(|drawing| drawing.replace("time-line-", &own));
        part.gates.clear();
        part
    });
    std::iter::once(page(report)).chain(acts).collect()
}

/// The texts of a report.
pub(super) fn page(report: &Report) -> Page {
    let fault = report.fault.as_ref();
    let zero = fault.map_or(At(0), |fault| fault.called);
    let (mark, class) = verdict_marks(&report.verdict);
    let second = |at: At| format!("{:.2}", at.us_since(zero) as f64 / 1e6);
    Page {
        act: report.act.as_ref().map(|act| {
            let came_to = format!("{mark} {}: {}", report.verdict, report.reason);
            [act.clone(), came_to]
        }),
        check: report.check.clone(),
        system: report.system.clone(),
        verdict: report.verdict.to_uppercase(),
        mark,
        class,
        exit_code: report.exit_code,
        reason_id: report.reason_id.clone(),
        reason: report.reason.clone(),
        next: report.next.clone(),
        schema: report.schema.clone(),
        started_at: report.started_at.clone(),
        took: format!("{:.1} s", report.took_s),
        gates: report.gates.iter().map(gate).collect(),
        gates_off: report
            .gates_off
            .iter()
            .map(|off| [off.id.clone(), off.title.clone(), off.flag.clone()])
            .collect(),
        figures: report.figures.iter().map(figure).collect(),
        charts: charts(report),
        time_line: time_line::drawing(report),
        zero: match fault {
            Some(_) => "seconds after the fault was called",
            None => "seconds after the start",
        },
        fault: fault.map(|fault| broken(report, fault)).unwrap_or_default(),
        client: client(report),
        outages: report.outages.iter().map(|o| outage(o, second)).collect(),
        overlaps: overlaps(report, second),
        phases: report
            .phases
            .iter()
            .map(|phase| {
                let (from, to) = (second(phase.at.earliest), second(phase.at.latest));
                [phase.name.clone(), from, to, phase.source.clone()]
            })
            .collect(),
        events: report
            .events
            .iter()
            .map(|event| [second(event.at), event.what.clone(), event.source.clone()])
            .collect(),
        ledger: report.ledger.as_ref().map(writes),
        undo: undo(report, second),
        tables: report.tables.clone(),
        feasibility: report.feasibility.clone(),
        conditions: report
            .conditions
            .iter()
            .map(|c| [c.name.clone(), c.value.clone()])
            .collect(),
        notes: report.notes.clone(),
    }
}

/// A sign and a class of colours for a verdict.
fn verdict_marks(verdict: &str) -> (&'static str, &'static str) {
    match verdict {
        "pass" | "clean" => ("✓", "good"),
        "fail" | "not-undone" | "internal" => ("✗", "bad"),
        "planned" => ("→", "plain"),
        _ => ("!", "warn"),
    }
}

fn gate(gate: &Gate) -> GateRow {
    let (mark, class) = match gate.outcome {
        Outcome::Held => ("✓", "good"),
        Outcome::Missed => ("✗", "bad"),
        Outcome::Unclear => ("?", "warn"),
    };
    let limit = match gate.bound {
        Bound::AtMost => format!("{} {}", number(gate.limit), gate.unit),
        Bound::AtLeast => format!("at least {} {}", number(gate.limit), gate.unit),
    };
    let measured = match gate.measured {
        Some(measured) => format!("{} {}", value(measured), gate.unit),
        None => "not measured".to_owned(),
    };
    GateRow {
        id: gate.id.clone(),
        title: gate.title.clone(),
        bar: gate_bar::drawing(gate, &format!("{measured}, limit {limit}")),
        limit,
        measured,
        outcome: gate.outcome.to_string(),
        mark,
        class,
    }
}

fn figure(figure: &Figure) -> [String; 4] {
    let told = |value: f64| format!("{} {}", number(value), figure.unit);
    let rounds = figure.rounds.iter().map(|value| number(*value));
    [
        figure.id.clone(),
        figure
            .median()
            .map_or_else(|| "not measured".to_owned(), told),
        rounds.collect::<Vec<_>>().join(", "),
        figure.title.clone(),
    ]
}

fn charts(report: &Report) -> Vec<ChartPart> {
    let drawn = report.charts.iter().filter_map(|chart| {
        let drawing = chart::drawing(chart)?;
        let title = chart.title.clone();
        Some(ChartPart { title, drawing })
    });
    drawn.collect()
}

/// What was broken, and how that is known.
fn broken(report: &Report, fault: &Fault) -> Vec<[String; 2]> {
    let after = |at: At| format!("{:.2} s", at.us_since(fault.called) as f64 / 1e6);
    let mut rows = vec![("what", fault.plan.told())];
    rows.extend(wall(report, fault.called).map(|wall| ("called at", wall)));
    let mut proof = |returned, trouble: &Option<String>, evidence: &Option<Evidence>| {
        rows.push(("calls returned after", after(returned)));
        rows.extend(trouble.clone().map(|words| ("trouble", words)));
        match evidence {
            Some(evidence) => {
                rows.push(("evidence after", after(evidence.at)));
                rows.push(("target", evidence.target.clone()));
                rows.push(("control", evidence.control.clone()));
                rows.extend(evidence.host.clone().map(|words| ("host", words)));
            }
            None => rows.push(("evidence", "none".to_owned())),
        }
    };
    proof(fault.returned, &fault.trouble, &fault.evidence);
    for later in &fault.later {
        proof(later.returned, &later.trouble, &later.evidence);
    }
    rows.push(("undone by", fault.plan.undo.told()));
    named(rows)
}

fn named(rows: Vec<(&str, String)>) -> Vec<[String; 2]> {
    rows.into_iter()
        .map(|(name, value)| [name.to_owned(), value])
        .collect()
}

/// A moment of the run by the wall clock; none when the report doesn't say when it was started.
fn wall(report: &Report, at: At) -> Option<String> {
    let started: jiff::Timestamp = report.started_at.parse().ok()?;
    let moment = started.checked_add(jiff::SignedDuration::from_micros(at.0));
    moment.ok().map(|moment| format!("{moment:.3}"))
}

/// The client's probes, counted.
fn client(report: &Report) -> Vec<[String; 2]> {
    let ms = |us: i64| format!("{:.1} ms", us as f64 / 1e3);
    let mut rows = Vec::new();
    rows.extend(
        report
            .client_outage
            .map(|length| ("outage in all", length.to_string())),
    );
    if let Some(probes) = &report.probes {
        rows.push(("a probe", probes.action.clone()));
        rows.push(("every", ms(probes.spacing_us)));
        rows.push(("limit", ms(probes.limit_us)));
        rows.push(("due", probes.due.to_string()));
        rows.push(("succeeded", probes.succeeded.to_string()));
        let failures = probes.failures.iter();
        let failures: Vec<String> = failures.map(|(kind, n)| format!("{n} {kind}")).collect();
        if !failures.is_empty() {
            rows.push(("failed", failures.join(", ")));
        }
        let latencies = (
            probes.latency_p50_us,
            probes.latency_p99_us,
            probes.latency_max_us,
        );
        if let (Some(p50), Some(p99), Some(max)) = latencies {
            let words = format!("median {}, p99 {}, max {}", ms(p50), ms(p99), ms(max));
            rows.push(("latency of successes", words));
        }
        let (p50, p99) = (ms(probes.lateness_p50_us), ms(probes.lateness_p99_us));
        let words = format!("median {p50}, p99 {p99}");
        rows.push(("sent late by our own fault", words));
    }
    named(rows)
}

fn outage(outage: &Outage, second: impl Fn(At) -> String) -> [String; 4] {
    let unknown = || "unknown".to_owned();
    let from = outage.started_after.map_or_else(unknown, &second);
    let to = outage.ended_by.map_or_else(unknown, &second);
    let open = outage.open_side().map(|side| format!(", {side}"));
    [
        format!("{from} to {}", second(outage.started_by)),
        format!("{} to {to}", second(outage.ended_after)),
        format!("{}{}", outage.length, open.unwrap_or_default()),
        outage.failed.to_string(),
    ]
}

fn overlaps(report: &Report, second: impl Fn(At) -> String) -> Vec<String> {
    let told = report.overlaps.iter().map(|overlap| {
        let [one, other] = &overlap.nodes;
        let losing = overlap.losing.as_deref().unwrap_or("neither");
        format!(
            "{one} and {other} took writes between {} and {} s ({} writes at least); {losing} \
             stopped first",
            second(overlap.earliest),
            second(overlap.latest),
            overlap.writes
        )
    });
    told.collect()
}

fn writes(ledger: &ledger::Ledger) -> LedgerTable {
    let summary = format!(
        "{} acknowledged, {} failed, {} unknown; {} rows read at the end",
        ledger.acknowledged, ledger.failed, ledger.unknown, ledger.rows
    );
    let classes = [
        ("lost", "acknowledged, not there", &ledger.lost),
        ("recovered", "unknown, there", &ledger.recovered),
        ("absent", "unknown, not there", &ledger.absent),
        ("phantom", "failed, there", &ledger.phantoms),
        ("duplicate", "there twice", &ledger.duplicates),
    ];
    let row = |(class, meaning, ranges): (&str, &str, &Vec<ledger::Range>)| {
        let count = ranges.iter().map(ledger::Range::count);
        let count = count.fold(0, u64::saturating_add).to_string();
        [
            class.to_owned(),
            meaning.to_owned(),
            count,
            ledger::told(ranges),
        ]
    };
    LedgerTable {
        summary,
        rows: classes.into_iter().map(row).collect(),
    }
}

fn undo(report: &Report, second: impl Fn(At) -> String) -> Vec<UndoRow> {
    let row = |step: &crate::fault::HealedStep| UndoRow {
        step: step.step.clone(),
        done: step.done.is_some(),
        span: match step.done {
            Some(done) => format!("{} to {}", second(step.began), second(done)),
            None => format!("from {}", second(step.began)),
        },
        words: step.words.clone(),
    };
    report.undo.iter().map(row).collect()
}
