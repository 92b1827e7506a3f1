//! What a check came to, as its report says it. A report that can't be read, or that says pass
//! without proof, is internal: nothing is ever taken for a pass.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

use serde::Deserialize;
use veza_probe::clock::Signal;
use veza_probe::verdict::{self, Gate, Outcome, Verdict};

/// The reports that are understood here.
const SCHEMA: &str = "veza-report/1";

/// What is read of a report.
#[derive(Debug, Deserialize)]
pub(super) struct Report {
    schema: String,
    check: String,
    verdict: String,
    #[serde(default)]
    exit_code: Option<u8>,
    reason: String,
    #[serde(default)]
    next: String,
    gates: Vec<Gate>,
}

/// What one check came to.
#[derive(Debug)]
pub(super) struct Finding {
    /// The check.
    pub(super) check: String,
    /// Its verdict.
    pub(super) verdict: Verdict,
    /// The reason, in one sentence.
    pub(super) reason: String,
    /// What a person does next; empty when nothing is to be done.
    pub(super) next: String,
    /// The gate that tells most: the first that was missed, else unclear, else held.
    pub(super) gate: Option<Gate>,
    /// How long the check took.
    pub(super) took_s: f64,
    /// Whether a report lies in the check's folder.
    pub(super) reported: bool,
}

/// Reads the report in a check's folder.
pub(super) fn read(folder: &Path) -> Result<Report, String> {
    let path = folder.join("latest/report.json");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("no report: {e}"))?;
    serde_json::from_str(&text).map_err(|e| format!("the report can't be read: {e}"))
}

impl Finding {
    /// What the drill itself has to say of a check.
    pub(super) fn of_drill(check: &str, verdict: Verdict, reason: impl Into<String>) -> Finding {
        Finding {
            check: check.to_owned(),
            verdict,
            reason: reason.into(),
            next: String::new(),
            gate: None,
            took_s: 0.0,
            reported: false,
        }
    }

    /// What a check came to that has ended.
    pub(super) fn of_check(
        check: &str,
        status: ExitStatus,
        report: Result<Report, String>,
    ) -> Finding {
        let report = match report {
            Ok(report) => report,
            Err(told) => {
                let told = format!("{told}; it ended with {status}");
                return Finding::of_drill(check, Verdict::Internal, told);
            }
        };
        let said = word(&report);
        let (verdict, reason) = match doubt(check, status, &report, said) {
            Some(doubt) => {
                let verdict = worse(Verdict::Internal, said.unwrap_or(Verdict::Internal));
                (
                    verdict,
                    format!("{doubt} (the report says: {})", report.reason),
                )
            }
            None => (said.unwrap_or(Verdict::Internal), report.reason.clone()),
        };
        Finding {
            gate: telling(&report.gates).cloned(),
            next: report.next,
            reported: true,
            ..Finding::of_drill(check, verdict, reason)
        }
    }
}

/// Why a report is not to be believed, if so.
fn doubt(
    check: &str,
    status: ExitStatus,
    report: &Report,
    said: Option<Verdict>,
) -> Option<String> {
    let Some(said) = said else {
        return Some(format!("verdict `{}` is unknown", report.verdict));
    };
    if report.schema != SCHEMA {
        return Some(format!("the report is `{}`, not `{SCHEMA}`", report.schema));
    }
    if report.check != check {
        return Some(format!("the report is one of {}", report.check));
    }
    if let Some(signal) = status.signal() {
        return Some(format!("signal {signal} ended it before its end"));
    }
    match said {
        Verdict::Planned => Some("nothing was broken, so nothing held".to_owned()),
        Verdict::Pass if !status.success() => {
            Some(format!("the report says pass, but it ended with {status}"))
        }
        Verdict::Pass if report.gates.is_empty() => {
            Some("it passed without a single gate".to_owned())
        }
        Verdict::Pass => report
            .gates
            .iter()
            .find(|gate| gate.outcome != Outcome::Held)
            .map(|gate| format!("it passed although gate {} is {}", gate.id, gate.outcome)),
        _ => None,
    }
}

/// The verdict that a report's word means.
fn word(report: &Report) -> Option<Verdict> {
    let signals = [Signal::Hangup, Signal::Interrupt, Signal::Terminate];
    let interrupted = signals
        .map(Verdict::Interrupted)
        .into_iter()
        .find(|verdict| Some(verdict.code()) == report.exit_code)
        .unwrap_or(Verdict::Interrupted(Signal::Interrupt));
    // `clean` is what `--recover` says: nothing was broken either.
    let mut all = [interrupted, Verdict::Planned]
        .into_iter()
        .chain(verdict::WORST_FIRST);
    let said = if report.verdict == "clean" {
        "planned"
    } else {
        &report.verdict
    };
    all.find(|verdict| verdict.word() == said)
}

/// The gate that tells most.
fn telling(gates: &[Gate]) -> Option<&Gate> {
    let first = |outcome| gates.iter().find(|gate| gate.outcome == outcome);
    first(Outcome::Missed)
        .or_else(|| first(Outcome::Unclear))
        .or_else(|| gates.first())
}

/// 0 is the worst.
fn rank(verdict: Verdict) -> usize {
    verdict::rank(verdict.word())
}

fn worse(one: Verdict, other: Verdict) -> Verdict {
    if rank(other) < rank(one) { other } else { one }
}

/// The worst verdict of a drill, which a signal may have ended early. No finding at all proves
/// nothing.
pub(super) fn worst(findings: &[Finding], signal: Option<Signal>) -> Verdict {
    let verdicts = findings.iter().map(|finding| finding.verdict);
    let all = verdicts.chain(signal.map(Verdict::Interrupted));
    all.reduce(worse).unwrap_or(Verdict::Internal)
}

#[cfg(test)]
mod tests {
    use veza_probe::verdict::Measured;

    use super::*;

    fn report(verdict: &str, gates: &[Option<f64>]) -> Report {
        let gate = |value: &Option<f64>| {
            let measured = value.map(Measured::exact);
            Gate::at_most("rto", "service back", 60.0, "s", measured)
        };
        Report {
            schema: SCHEMA.to_owned(),
            check: "drop-check".to_owned(),
            verdict: verdict.to_owned(),
            exit_code: None,
            reason: "so".to_owned(),
            next: String::new(),
            gates: gates.iter().map(gate).collect(),
        }
    }

    fn verdict(code: i32, report: Report) -> Verdict {
        let status = ExitStatus::from_raw(code << 8);
        Finding::of_check("drop-check", status, Ok(report)).verdict
    }

    #[test]
    fn the_reports_word_decides_and_not_the_code() {
        for (said, expected) in [
            ("not-undone", Verdict::NotUndone),
            ("internal", Verdict::Internal),
            ("fail", Verdict::Fail),
            ("inconclusive", Verdict::Inconclusive),
            ("refused", Verdict::Refused),
            ("missing-tool", Verdict::MissingTool),
            ("usage", Verdict::Usage),
        ] {
            assert_eq!(verdict(0, report(said, &[])), expected);
            assert_eq!(verdict(99, report(said, &[])), expected);
        }
        assert_eq!(verdict(0, report("pass", &[Some(9.0)])), Verdict::Pass);
    }

    #[test]
    fn an_interruption_keeps_its_signal() {
        let by_term = Report {
            exit_code: Some(143),
            ..report("interrupted", &[])
        };
        assert_eq!(verdict(143, by_term).code(), 143);
        assert_eq!(verdict(130, report("interrupted", &[])).code(), 130);
    }

    #[test]
    fn nothing_is_taken_for_a_pass() {
        let held = Some(9.0);
        let other_check = Report {
            check: "x".to_owned(),
            ..report("pass", &[held])
        };
        let other_schema = Report {
            schema: "x/2".to_owned(),
            ..report("pass", &[held])
        };
        for doubtful in [
            verdict(0, report("pass", &[])),
            verdict(0, report("pass", &[held, Some(61.0)])),
            verdict(0, report("pass", &[None])),
            verdict(4, report("pass", &[held])),
            verdict(0, report("planned", &[held])),
            verdict(0, report("clean", &[held])),
            verdict(0, report("splendid", &[held])),
            verdict(0, other_check),
            verdict(0, other_schema),
        ] {
            assert_eq!(doubtful, Verdict::Internal);
        }
        let none = Finding::of_check("drop-check", ExitStatus::from_raw(0), Err("no".to_owned()));
        assert_eq!((none.verdict, none.reported), (Verdict::Internal, false));
    }

    #[test]
    fn a_killed_check_is_internal_unless_worse_is_known() {
        let killed = |said| {
            let status = ExitStatus::from_raw(9);
            Finding::of_check("drop-check", status, Ok(report(said, &[Some(9.0)]))).verdict
        };
        assert_eq!(killed("pass"), Verdict::Internal);
        assert_eq!(killed("fail"), Verdict::Internal);
        assert_eq!(killed("not-undone"), Verdict::NotUndone);
    }

    #[test]
    fn the_worst_decides_in_this_order() {
        let finding = |verdict| Finding::of_drill("drop-check", verdict, "so");
        for (index, worst_one) in verdict::WORST_FIRST.into_iter().enumerate() {
            let rest = verdict::WORST_FIRST.iter().skip(index).rev();
            let findings: Vec<Finding> = rest.map(|verdict| finding(*verdict)).collect();
            assert_eq!(worst(&findings, None), worst_one);
        }
        assert_eq!(worst(&[], None), Verdict::Internal);
        let signal = Some(Signal::Terminate);
        assert_eq!(worst(&[], signal).code(), 143);
        assert_eq!(worst(&[finding(Verdict::Pass)], signal).code(), 143);
        assert_eq!(worst(&[finding(Verdict::Fail)], signal), Verdict::Fail);
    }

    #[test]
    fn the_gate_that_tells_most_is_shown() {
        let gates = report("fail", &[Some(1.0), None, Some(61.0)]).gates;
        assert_eq!(telling(&gates).unwrap().outcome, Outcome::Missed);
        assert_eq!(telling(&gates[..2]).unwrap().outcome, Outcome::Unclear);
        assert_eq!(telling(&gates[..1]).unwrap().outcome, Outcome::Held);
        assert!(telling(&[]).is_none());
    }

    #[test]
    fn what_a_check_writes_is_read() {
        let folder = std::env::temp_dir().join(format!("veza-report-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("latest")).unwrap();
        assert!(read(&folder).unwrap_err().contains("no report"));
        std::fs::write(folder.join("latest/report.json"), "{").unwrap();
        assert!(read(&folder).unwrap_err().contains("can't be read"));
        let text = r#"{"schema":"veza-report/1","check":"drop-check","verdict":"pass","exit_code":0,
            "reason_id":"all-gates-held","reason":"every gate held","next":"","gates":[{"id":"rto",
            "title":"service back","limit":60.0,"unit":"s","measured":{"lower":9.8,"upper":9.9},
            "outcome":"held"}],"more":1}"#;
        std::fs::write(folder.join("latest/report.json"), text).unwrap();
        let report = read(&folder);
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(verdict(0, report.unwrap()), Verdict::Pass);
    }
}
