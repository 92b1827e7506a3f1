//! The report on one screen: verdict and reason first, then the time line, gates, nodes, conditions.
//! Readable without colour, and without knowing the tool.

use std::fmt::Write;

use super::{Figure, Report, Table};
use crate::clock::At;
use crate::ledger;
use crate::verdict::{Bound, Gate, Measured};

/// The report as text.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a String can't fail.
    let _ = write_all(&mut out, report);
    out
}

fn write_all(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(
        out,
        "{} {}; next: {}",
        report.verdict.to_uppercase(),
        report.reason_id,
        report.next
    )?;
    writeln!(out, "{}", report.reason)?;
    if !report.system.is_empty() {
        writeln!(
            out,
            "{} on {}, {}",
            report.check, report.system, report.started_at
        )?;
    }
    time_line(out, report)?;
    gates(out, report)?;
    for act in &report.acts {
        let name = act.act.as_deref().unwrap_or_default();
        writeln!(
            out,
            "\nAct {name}: {} {}",
            act.verdict.to_uppercase(),
            act.reason_id
        )?;
        writeln!(out, "{}", act.reason)?;
        body(out, act)?;
    }
    body(out, report)
}

/// All that stands below the gates.
fn body(out: &mut String, report: &Report) -> std::fmt::Result {
    if report.act.is_some() {
        time_line(out, report)?;
    }
    section(out, "Figures", report.figures.iter().map(figure))?;
    for table in &report.tables {
        write_table(out, table)?;
    }
    section(
        out,
        "Undo",
        report.undo.iter().map(|step| {
            let state = if step.done.is_some() {
                "done"
            } else {
                "NOT DONE"
            };
            format!("{}: {state}, {}", step.step, step.words)
        }),
    )?;
    // The sums are worth a person's time only when something went wrong; the JSON has them always.
    let sums = report
        .feasibility
        .iter()
        .filter(|_| report.verdict != "pass")
        .cloned();
    section(out, "What the configuration can promise", sums)?;
    probes(out, report)?;
    writes(out, report)?;
    let conditions = report
        .conditions
        .iter()
        .map(|c| format!("{}: {}", c.name, c.value));
    section(out, "Conditions", wrapped(conditions).into_iter())?;
    section(out, "Notes", report.notes.iter().cloned())
}

fn section(out: &mut String, title: &str, lines: impl Iterator<Item = String>) -> std::fmt::Result {
    for (number, line) in lines.enumerate() {
        if number == 0 {
            writeln!(out, "\n{title}")?;
        }
        writeln!(out, "  {line}")?;
    }
    Ok(())
}

/// Items on as few lines as fit a screen of 100 columns.
fn wrapped(items: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for item in items {
        match lines.last_mut() {
            Some(line) if line.chars().count() + item.chars().count() < 96 => {
                line.push_str("; ");
                line.push_str(&item);
            }
            _ => lines.push(item),
        }
    }
    lines
}

/// Everything that happened, in order, in seconds after the fault was called.
fn time_line(out: &mut String, report: &Report) -> std::fmt::Result {
    let Some(fault) = &report.fault else {
        return Ok(());
    };
    let zero = fault.called;
    let seconds = |at: At| at.us_since(zero) as f64 / 1e6;
    let mut lines: Vec<(At, String)> = Vec::new();
    let fault_line = format!("fault: {}", fault.plan.told());
    lines.push((zero, format!("{:>16}  {fault_line}", "0.00")));
    let later = fault.later.iter().map(|stage| &stage.evidence);
    for evidence in [&fault.evidence].into_iter().chain(later).flatten() {
        let mut told = format!("evidence: {}, while {}", evidence.target, evidence.control);
        if let Some(host) = &evidence.host {
            let _ = write!(told, "; {host}");
        }
        lines.push((
            evidence.at,
            format!("{:>16.2}  {told}", seconds(evidence.at)),
        ));
    }
    for phase in &report.phases {
        let (earliest, latest) = (phase.at.earliest, phase.at.latest);
        let span = format!("{:.2} to {:.2}", seconds(earliest), seconds(latest));
        lines.push((
            latest,
            format!("{span:>16}  {} ({})", phase.name, phase.source),
        ));
    }
    for event in &report.events {
        let told = format!("{} ({})", event.what, event.source);
        lines.push((event.at, format!("{:>16.2}  {told}", seconds(event.at))));
    }
    lines.sort_by_key(|(at, _)| *at);
    section(
        out,
        "Time line, in seconds after the fault was called",
        lines.into_iter().map(|l| l.1),
    )
}

fn gates(out: &mut String, report: &Report) -> std::fmt::Result {
    let line = |gate: &Gate| {
        let (id, outcome) = (&gate.id, gate.outcome.to_string());
        let measured = gate
            .measured
            .map_or_else(|| "not measured".to_owned(), value);
        let unit = if gate.measured.is_some() {
            gate.unit.as_str()
        } else {
            ""
        };
        let bound = match gate.bound {
            Bound::AtMost => "limit",
            Bound::AtLeast => "at least",
        };
        let limit = format!("{bound} {} {}", number(gate.limit), gate.unit);
        format!(
            "{id:<17} {outcome:<8} {measured} {unit} ({limit}): {}",
            gate.title
        )
    };
    section(out, "Gates", report.gates.iter().map(line))
}

/// A figure with its median, and each round's value where there were several.
fn figure(figure: &Figure) -> String {
    let told = figure
        .median()
        .map_or_else(|| "not measured".to_owned(), number);
    let unit = &figure.unit;
    let rounds = figure.rounds.iter().map(|value| number(*value));
    let rounds = match figure.rounds.len() {
        0 | 1 => String::new(),
        _ => format!(" (rounds: {})", rounds.collect::<Vec<_>>().join(", ")),
    };
    format!("{:<17} {told} {unit}{rounds}: {}", figure.id, figure.title)
}

/// A measured value without its unit: `9.48 to 9.53`.
pub(super) fn value(measured: Measured) -> String {
    match measured.upper {
        Some(upper) if upper == measured.lower => number(upper),
        Some(upper) => format!("{:.2} to {upper:.2}", measured.lower),
        None => format!("at least {:.2}", measured.lower),
    }
}

/// Whole numbers without decimals, others with two.
pub(super) fn number(value: f64) -> String {
    if value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

fn write_table(out: &mut String, table: &Table) -> std::fmt::Result {
    let width = |column: usize| {
        let cells = table
            .rows
            .iter()
            .chain([&table.columns])
            .filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..table.columns.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    section(
        out,
        &table.title,
        std::iter::once(&table.columns).chain(&table.rows).map(line),
    )
}

/// What became of the client's writes, and who took writes at once.
fn writes(out: &mut String, report: &Report) -> std::fmt::Result {
    let mut lines = Vec::new();
    if let Some(ledger) = &report.ledger {
        lines.push(format!(
            "{} acknowledged, {} failed, {} unknown; {} rows read at the end",
            ledger.acknowledged, ledger.failed, ledger.unknown, ledger.rows
        ));
        let classes = [
            ("lost (acknowledged, not there)", &ledger.lost),
            ("recovered (unknown, there)", &ledger.recovered),
            ("unknown, not there", &ledger.absent),
            ("phantom (failed, there)", &ledger.phantoms),
            ("duplicate (there twice)", &ledger.duplicates),
        ];
        lines.extend(
            classes
                .iter()
                .map(|(name, ranges)| format!("{name}: {}", ledger::told(ranges))),
        );
    }
    let zero = report.fault.as_ref().map_or(At(0), |fault| fault.called);
    for overlap in &report.overlaps {
        let seconds = |at: At| at.us_since(zero) as f64 / 1e6;
        let losing = overlap.losing.as_deref().unwrap_or("neither");
        lines.push(format!(
            "TWO PRIMARIES: {} and {} took writes between {:.2} and {:.2} s ({} writes at least); {losing} \
             stopped first",
            overlap.nodes[0],
            overlap.nodes[1],
            seconds(overlap.earliest),
            seconds(overlap.latest),
            overlap.writes
        ));
    }
    section(out, "Writes", lines.into_iter())
}

fn probes(out: &mut String, report: &Report) -> std::fmt::Result {
    let Some(probes) = &report.probes else {
        return Ok(());
    };
    let ms = |us: i64| us as f64 / 1e3;
    let mut lines = vec![format!(
        "{}: {} due, {} ms apart, limit {} ms; {} succeeded",
        probes.action,
        probes.due,
        ms(probes.spacing_us),
        ms(probes.limit_us),
        probes.succeeded
    )];
    let counted = probes
        .failures
        .iter()
        .map(|(kind, count)| format!("{count} {kind}"));
    let counted = counted.collect::<Vec<_>>();
    if !counted.is_empty() {
        lines.push(format!("failed: {}", counted.join(", ")));
    }
    if let (Some(p50), Some(p99), Some(max)) = (
        probes.latency_p50_us,
        probes.latency_p99_us,
        probes.latency_max_us,
    ) {
        let (p50, p99, max) = (ms(p50), ms(p99), ms(max));
        lines.push(format!(
            "latency of successes: median {p50:.1} ms, p99 {p99:.1} ms, max {max:.1} ms"
        ));
    }
    let (p50, p99) = (ms(probes.lateness_p50_us), ms(probes.lateness_p99_us));
    lines.push(format!(
        "sent late by our own fault: median {p50:.1} ms, p99 {p99:.1} ms"
    ));
    section(out, "Probes", lines.into_iter())
}
