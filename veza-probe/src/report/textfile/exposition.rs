//! Series and Prometheus' text format, version 0.0.4: written, and read back as far as it was written
//! here.
//!
//! The format wants all series of a name to stand together, no two of them with the same labels, and
//! `\`, `"` and the line end escaped in a label's value.

use std::collections::BTreeMap;
use std::fmt::Write;

/// The names, in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    LastRun,
    LastPass,
    Verdict,
    ExitCode,
    RunSeconds,
    GateLimit,
    GateValue,
    GateHeld,
    PhaseSeconds,
}

/// A name with what the format says of it.
pub(super) struct Metric {
    family: Family,
    /// The name.
    pub(super) name: &'static str,
    /// The type.
    kind: &'static str,
    /// The labels beside [`COMMON`].
    labels: &'static [&'static str],
    /// What it is; without a backslash or a line end.
    help: &'static str,
}

/// The labels that every series has.
const COMMON: [&str; 2] = ["check", "system"];

/// Every name. What is here is part of the interface, and stands in docs/metrics.md.
pub(super) const METRICS: [Metric; 9] = [
    Metric {
        family: Family::LastRun,
        name: "veza_last_run_timestamp_seconds",
        kind: "gauge",
        labels: &[],
        help: "When the last run ended.",
    },
    Metric {
        family: Family::LastPass,
        name: "veza_last_pass_timestamp_seconds",
        kind: "gauge",
        labels: &[],
        help: "When the last run that passed ended, --fault none left out; 0 when none has.",
    },
    Metric {
        family: Family::Verdict,
        name: "veza_verdict",
        kind: "gauge",
        labels: &["verdict"],
        help: "1 for the verdict of the last run, 0 for the others.",
    },
    Metric {
        family: Family::ExitCode,
        name: "veza_exit_code",
        kind: "gauge",
        labels: &[],
        help: "The exit code of the last run.",
    },
    Metric {
        family: Family::RunSeconds,
        name: "veza_run_seconds",
        kind: "gauge",
        labels: &[],
        help: "How long the last run took.",
    },
    Metric {
        family: Family::GateLimit,
        name: "veza_gate_limit",
        kind: "gauge",
        labels: &["gate", "unit"],
        help: "The limit of a gate of the last run.",
    },
    Metric {
        family: Family::GateValue,
        name: "veza_gate_value",
        kind: "gauge",
        labels: &["gate", "unit", "bound"],
        help: "What the last run measured for a gate: the value lies between both bounds.",
    },
    Metric {
        family: Family::GateHeld,
        name: "veza_gate_held",
        kind: "gauge",
        labels: &["gate"],
        help: "1 when a gate of the last run held, 0 when it was missed or unclear.",
    },
    Metric {
        family: Family::PhaseSeconds,
        name: "veza_phase_seconds",
        kind: "gauge",
        labels: &["phase", "bound"],
        help: "When the system did something, in seconds after the fault was called: between both bounds.",
    },
];

/// The values of the labels, in the order of their names.
type Labels = Vec<String>;

/// Series with their values, in the order of the file.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Series(BTreeMap<(Family, Labels), f64>);

impl Series {
    /// Adds one; of two with the same labels the first stands.
    pub(super) fn add(
        &mut self,
        family: Family,
        (check, system): (&str, &str),
        own: &[&str],
        value: f64,
    ) {
        let labels = [check, system].into_iter().chain(own.iter().copied());
        let labels = labels.map(str::to_owned).collect();
        self.0.entry((family, labels)).or_insert(value);
    }

    /// The value of a series without labels of its own.
    pub(super) fn get(&self, family: Family, check: &str, system: &str) -> Option<f64> {
        let labels = vec![check.to_owned(), system.to_owned()];
        self.0.get(&(family, labels)).copied()
    }

    /// Takes away all that is about a system.
    pub(super) fn forget(&mut self, system: &str) {
        // The second of the common labels.
        self.0
            .retain(|(_, labels), _| labels.get(1).is_none_or(|about| about != system));
    }

    /// The file.
    pub(super) fn render(&self) -> String {
        let mut out = String::new();
        for metric in &METRICS {
            let of_metric = self.0.iter().filter(|((f, _), _)| *f == metric.family);
            let lines: Vec<String> = of_metric
                .map(|((_, labels), value)| line(metric, labels, *value))
                .collect();
            if !lines.is_empty() {
                // Writing to a String can't fail.
                let _ = writeln!(out, "# HELP {} {}", metric.name, metric.help);
                let _ = writeln!(out, "# TYPE {} {}", metric.name, metric.kind);
                out.extend(lines);
            }
        }
        out
    }

    /// Reads a file of a check.
    ///
    /// # Errors
    /// The number of the first line that was not written here for this check.
    pub(super) fn parse(text: &str, check: &str) -> Result<Series, usize> {
        let mut series = Series::default();
        for (index, line) in text.lines().enumerate() {
            // HELP may have had other words in another version.
            if line.starts_with("# HELP veza_") || line.starts_with("# TYPE veza_") {
                continue;
            }
            let read =
                read(line).filter(|((_, labels), _)| labels.first().is_some_and(|c| c == check));
            let (key, value) = read.ok_or(index + 1)?;
            series.0.insert(key, value);
        }
        Ok(series)
    }
}

fn line(metric: &Metric, values: &[String], value: f64) -> String {
    let names = COMMON.iter().chain(metric.labels);
    let labels = names
        .zip(values)
        .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)));
    let labels = labels.collect::<Vec<_>>().join(",");
    format!("{}{{{labels}}} {}\n", metric.name, number(value))
}

/// As Go reads it, which spells infinity its own way.
fn number(value: f64) -> String {
    if value.is_infinite() {
        (if value > 0.0 { "+Inf" } else { "-Inf" }).to_owned()
    } else {
        value.to_string()
    }
}

fn escaped(value: &str) -> String {
    let value = value.replace('\\', "\\\\");
    value.replace('"', "\\\"").replace('\n', "\\n")
}

/// One series; none when it is not exactly as [`line`] writes it.
fn read(text: &str) -> Option<((Family, Labels), f64)> {
    let (name, mut rest) = text.split_once('{')?;
    let metric = METRICS.iter().find(|metric| metric.name == name)?;
    let mut values = Vec::new();
    for (index, label) in COMMON.iter().chain(metric.labels).enumerate() {
        if index > 0 {
            rest = rest.strip_prefix(',')?;
        }
        rest = rest.strip_prefix(label)?.strip_prefix("=\"")?;
        let (value, after) = unescaped(rest)?;
        values.push(value);
        rest = after;
    }
    let value = rest.strip_prefix("} ")?.parse().ok()?;
    Some(((metric.family, values), value))
}

/// A label's value up to its closing quote, and what comes after that.
fn unescaped(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                same @ ('\\' | '"') => same,
                _ => return None,
            }),
            other => value.push(other),
        }
    }
    None
}
