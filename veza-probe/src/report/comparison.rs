//! Two reports side by side: gates, phases, and whether they may be compared at all.

use std::fmt::Write;

use super::{Condition, Figure, Report};
use crate::verdict::{Gate, Measured};

/// Conditions that differ in any two runs and make none of them incomparable: clocks, delays.
const ALWAYS_DIFFERENT: [&str; 3] = ["monitor's clock", "observer's clock", "TCP handshake"];

/// Two reports side by side, as text.
///
/// # Errors
/// A sentence that names what differs, where comparing would mislead: another check or system,
/// another kind of fault, other versions or timers.
pub fn compare(old: &Report, new: &Report) -> Result<String, String> {
    let differs = |what: &str, old: &str, new: &str| {
        (old != new).then(|| format!("{what}: {old:?} and {new:?}"))
    };
    let kind = |report: &Report| {
        let parts = report.acts.iter().chain([report]);
        let faults = parts.filter_map(|part| Some((part.act.as_deref(), part.fault.as_ref()?)));
        let kinds: Vec<String> = faults
            .map(|(act, fault)| match act {
                Some(act) => format!("{act}: {}", fault.plan.kinds()),
                None => fault.plan.kinds(),
            })
            .collect();
        match kinds.is_empty() {
            true => "none was made".to_owned(),
            false => kinds.join(", "),
        }
    };
    let mut reasons: Vec<String> = [
        differs("check", &old.check, &new.check),
        differs("system", &old.system, &new.system),
        differs("fault", &kind(old), &kind(new)),
    ]
    .into_iter()
    .flatten()
    .collect();
    reasons.extend(conditions(&old.conditions, &new.conditions));
    if !reasons.is_empty() {
        return Err(format!("not comparable: {}", reasons.join("; ")));
    }
    let mut out = String::new();
    // Writing to a String can't fail.
    let _ = table(&mut out, old, new);
    Ok(out)
}

fn conditions(old: &[Condition], new: &[Condition]) -> Vec<String> {
    let of = |list: &[Condition], name: &str| {
        let found = list.iter().find(|c| c.name == name);
        found.map_or_else(|| "unknown".to_owned(), |c| c.value.clone())
    };
    let mut names: Vec<&str> = old.iter().chain(new).map(|c| c.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| !ALWAYS_DIFFERENT.contains(name) && !is_of_the_primary(name));
    names
        .into_iter()
        .filter_map(|name| {
            let (old, new) = (of(old, name), of(new, name));
            (old != new).then(|| format!("{name}: {old:?} and {new:?}"))
        })
        .collect()
}

/// Names a standby, which is another one after each failover.
fn is_of_the_primary(name: &str) -> bool {
    name.ends_with("synchronous_standby_names")
}

fn table(out: &mut String, old: &Report, new: &Report) -> std::fmt::Result {
    writeln!(out, "{} on {}", new.check, new.system)?;
    writeln!(
        out,
        "{:<16} {:<28} {:<28}",
        "", old.started_at, new.started_at
    )?;
    row(out, "verdict", &old.verdict, &new.verdict)?;
    for gate in &new.gates {
        let before = old.gates.iter().find(|g| g.id == gate.id);
        let before = before.map_or_else(|| "not judged".to_owned(), told);
        row(out, &gate.id, &before, &told(gate))?;
    }
    for figure in &new.figures {
        let before = old.figures.iter().find(|f| f.id == figure.id);
        let before = before.map_or_else(|| "not measured".to_owned(), measured);
        row(out, &figure.id, &before, &measured(figure))?;
    }
    phases(out, "", old, new)?;
    for act in &new.acts {
        let name = act.act.as_deref().unwrap_or_default();
        if let Some(before) = old.acts.iter().find(|before| before.act == act.act) {
            phases(out, &format!("{name}/"), before, act)?;
        }
    }
    Ok(())
}

/// The phases of two runs, or of one act of both.
fn phases(out: &mut String, act: &str, old: &Report, new: &Report) -> std::fmt::Result {
    for phase in &new.phases {
        let seconds = |report: &Report| {
            let zero = report.fault.as_ref()?.called;
            let phase = report.phases.iter().find(|p| p.name == phase.name)?;
            let at = phase.at.latest.us_since(zero) as f64 / 1e6;
            Some(format!("by {at:.2} s"))
        };
        let missing = || "not seen".to_owned();
        let (before, after) = (seconds(old), seconds(new));
        let (before, after) = (
            before.unwrap_or_else(missing),
            after.unwrap_or_else(missing),
        );
        row(out, &format!("{act}{}", phase.name), &before, &after)?;
    }
    Ok(())
}

fn row(out: &mut String, name: &str, old: &str, new: &str) -> std::fmt::Result {
    writeln!(out, "{name:<16} {old:<28} {new:<28}")
}

fn measured(figure: &Figure) -> String {
    let median = figure
        .median()
        .map(|value| format!("{value:.2} {}", figure.unit));
    median.unwrap_or_else(|| "not measured".to_owned())
}

fn told(gate: &Gate) -> String {
    let value = match gate.measured {
        None => "not measured".to_owned(),
        Some(Measured {
            lower,
            upper: Some(upper),
        }) if lower == upper => format!("{upper} {}", gate.unit),
        Some(Measured {
            lower,
            upper: Some(upper),
        }) => format!("{lower:.2} to {upper:.2} {}", gate.unit),
        Some(Measured { lower, upper: None }) => format!("at least {lower:.2} {}", gate.unit),
    };
    format!("{value}, {}", gate.outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::verdict::{Judgement, Verdict};

    fn report(seconds: f64) -> Report {
        let pass = Judgement::new(Verdict::Pass, "all-gates-held", "fine", "nothing");
        let mut report = Report::new("a-check", &Clock::start(), &pass);
        report.system = "a system".into();
        report.condition("version", "0.1.0");
        report.condition("monitor's clock", format!("{seconds} ms"));
        let measured = Measured {
            lower: seconds,
            upper: Some(seconds + 0.05),
        };
        report.gates = vec![Gate::at_most("rto", "RTO", 60.0, "s", Some(measured))];
        report
    }

    #[test]
    fn gates_stand_side_by_side() {
        let text = compare(&report(9.2), &report(9.5)).unwrap();
        let gate = text.lines().find(|line| line.starts_with("rto")).unwrap();
        assert!(gate.contains("9.20 to 9.25 s, held") && gate.contains("9.50 to 9.55 s, held"));
    }

    #[test]
    fn what_would_mislead_is_refused_with_what_differs() {
        let refused = |change: fn(&mut Report)| {
            let (old, mut new) = (report(9.2), report(9.5));
            change(&mut new);
            compare(&old, &new).unwrap_err()
        };
        assert!(refused(|r| r.check = "b-check".into()).contains("check"));
        assert!(refused(|r| r.system = "another".into()).contains("another"));
        assert!(refused(|r| r.condition("primary_demote_timeout", "5000 ms")).contains("demote"));
        assert!(refused(|r| r.conditions[0].value = "0.2.0".into()).contains("0.2.0"));
        assert!(refused(|r| r.condition("vantage", "inside pg-client")).contains("inside"));
        // How far away the nodes were is never twice the same.
        let (old, mut new) = (report(9.2), report(9.5));
        new.condition("TCP handshake", "pg-1 0.20 ms");
        new.condition("observer's clock", "known here to ±0.08 ms");
        assert!(compare(&old, &new).is_ok());
    }
}
