//! The report as metrics, for the textfile collector of node_exporter: one file per check.
//!
//! All systems of a check share its file, so it is read before it is written: what another system's
//! run left stays, and so does the moment of the last pass. Only what this module wrote is read. A
//! dry run and a clean `--recover` are no drills and write nothing.

mod exposition;
mod place;

use std::io;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use super::Report;
use crate::clock::Signal;
use crate::fault::Fault;
use crate::verdict::{Outcome, Verdict};
use exposition::{Family, Series};
use place::Place;

/// What a drill can come to; a series for each, so that an alert can name it and see it end.
const VERDICTS: [Verdict; 9] = [
    Verdict::Pass,
    Verdict::Fail,
    Verdict::Refused,
    Verdict::Inconclusive,
    Verdict::NotUndone,
    Verdict::Interrupted(Signal::Terminate),
    Verdict::Internal,
    Verdict::MissingTool,
    Verdict::Usage,
];

/// What is no drill.
const NO_DRILLS: [Verdict; 2] = [Verdict::Planned, Verdict::Clean];

/// Whether the metrics of a check can be written into a folder: so that it is known before anything
/// is broken.
///
/// # Errors
/// When the folder is not there or not writable, or the file in it can't be read.
pub fn ready(check: &str, folder: &Path) -> io::Result<()> {
    let place = Place::open(check, folder)?;
    place.read(check)?;
    place.rehearse()
}

/// Writes `veza_<check>.prom` into a folder, whole or not at all.
///
/// # Errors
/// With the path, when the file can't be written, or holds what this module did not write.
pub fn save(report: &Report, folder: &Path) -> io::Result<()> {
    if NO_DRILLS.iter().any(|v| v.word() == report.verdict) {
        return Ok(());
    }
    let place = Place::open(&report.check, folder)?;
    let mut series = place.read(&report.check)?;
    let (check, system) = (&report.check, &report.system);
    let last_pass_s = series.get(Family::LastPass, check, system);
    series.forget(system);
    fill(&mut series, report, last_pass_s)?;
    place.replace(&series.render())
}

/// Adds what one report says.
fn fill(series: &mut Series, report: &Report, last_pass_s: Option<f64>) -> io::Result<()> {
    if !VERDICTS.iter().any(|v| v.word() == report.verdict) {
        return Err(invalid(format!("no verdict is `{}`", report.verdict)));
    }
    let ended_s = ended_s(report)?;
    let mut add = |family, own: &[&str], value| {
        series.add(family, (&report.check, &report.system), own, value);
    };
    add(Family::LastRun, &[], ended_s);
    // Watching alone proves no promise about faults, and must not hide that no drill has passed.
    let broke = |fault: &Fault| fault.plan.kind.breaks();
    let faults = || {
        report
            .acts
            .iter()
            .chain([report])
            .filter_map(|part| part.fault.as_ref())
    };
    let broken = faults().next().is_none() || faults().any(broke);
    let passed = report.verdict == Verdict::Pass.word() && broken;
    let kept_s = last_pass_s.unwrap_or(0.0);
    add(Family::LastPass, &[], if passed { ended_s } else { kept_s });
    for verdict in VERDICTS {
        let is = verdict.word() == report.verdict;
        add(Family::Verdict, &[verdict.word()], f64::from(u8::from(is)));
    }
    add(Family::ExitCode, &[], f64::from(report.exit_code));
    add(Family::RunSeconds, &[], report.took_s);
    for gate in &report.gates {
        let (id, unit) = (gate.id.as_str(), gate.unit.as_str());
        add(Family::GateLimit, &[id, unit], gate.limit);
        if let Some(measured) = gate.measured {
            add(Family::GateValue, &[id, unit, "lower"], measured.lower);
            let upper = measured.upper.unwrap_or(f64::INFINITY);
            add(Family::GateValue, &[id, unit, "upper"], upper);
        }
        let held = gate.outcome == Outcome::Held;
        add(Family::GateHeld, &[id], f64::from(u8::from(held)));
    }
    for part in report.acts.iter().chain([report]) {
        let Some(fault) = &part.fault else { continue };
        let act = part
            .act
            .as_ref()
            .map(|act| format!("{act}/"))
            .unwrap_or_default();
        for phase in &part.phases {
            let name = format!("{act}{}", phase.name);
            for (bound, at) in [("lower", phase.at.earliest), ("upper", phase.at.latest)] {
                let seconds = at.us_since(fault.called) as f64 / 1e6;
                add(Family::PhaseSeconds, &[&name, bound], seconds);
            }
        }
    }
    Ok(())
}

/// When the run ended, in seconds since 1970.
fn ended_s(report: &Report) -> io::Result<f64> {
    let read = |error: jiff::Error| invalid(format!("the time of the run: {error}"));
    let started: Timestamp = report.started_at.parse().map_err(read)?;
    let took = SignedDuration::try_from_secs_f64(report.took_s).map_err(read)?;
    let ended = started.checked_add(took).map_err(read)?;
    Ok(ended.as_millisecond() as f64 / 1e3)
}

fn invalid(words: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, words)
}

#[cfg(test)]
mod tests;
