//! What the lab tests came to, for people: a line each, the minutes of each group, and the end of
//! the log of each that failed.

use std::collections::BTreeMap;

use super::lab_test::{Outcome, Ready};

/// How much of a log is shown when its test failed.
const TAIL_LINES: usize = 40;

/// One test, with the end of its log when it failed.
pub(super) fn line(outcome: &Outcome) -> String {
    let Outcome {
        test,
        complaint,
        log,
        ready,
        ready_s,
        took_s,
        unmeasured_before,
        ..
    } = outcome;
    let (package, name) = (&test.package, &test.name);
    let before = match ready {
        Ready::Fresh => "on a fresh lab".to_owned(),
        Ready::Whole => format!("on a lab that was whole again after {ready_s:.1} s"),
        Ready::Reset => format!("after a reset of {ready_s:.1} s"),
    };
    let times = format!("{took_s:.1} s, {before}");
    let times = match unmeasured_before {
        0 => times,
        n => format!("{times}, {n} times before on a host too busy to measure"),
    };
    match complaint {
        None => format!("ok      {package} {name} ({times})"),
        Some(complaint) => {
            let text = std::fs::read(log).unwrap_or_default();
            let tail = tail(&String::from_utf8_lossy(&text));
            format!(
                "FAILED  {package} {name} ({times}): {complaint}\n{tail}  all of it: {}",
                log.display()
            )
        }
    }
}

fn tail(text: &str) -> String {
    let count = text.lines().count();
    let last = text.lines().skip(count.saturating_sub(TAIL_LINES));
    last.map(|line| format!("  | {line}\n")).collect()
}

/// How many passed, and the minutes of each group, its resets included.
pub(super) fn text(outcomes: &[Outcome]) -> String {
    let mut seconds: BTreeMap<String, f64> = BTreeMap::new();
    for outcome in outcomes {
        let all = outcome.ready_s + outcome.took_s;
        *seconds.entry(outcome.test.groups.join("+")).or_default() += all;
    }
    let groups = seconds
        .iter()
        .map(|(group, s)| format!("{group} {:.1} min", s / 60.0));
    let groups: Vec<String> = groups.collect();
    let passed = outcomes
        .iter()
        .filter(|outcome| outcome.complaint.is_none())
        .count();
    let all = outcomes.len();
    format!(
        "lab tests: {passed} of {all} passed; {}\n",
        groups.join(", ")
    )
}

/// How much of each log is shown once more at the very end, which is often all that a reader of a CI has.
const LAST_LINES: usize = 8;

/// What a test said when it failed: from its panic on, or the end of its log.
fn gist(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let panicked = lines.iter().position(|line| line.contains("panicked at"));
    let from = panicked.unwrap_or(lines.len().saturating_sub(LAST_LINES));
    let lines = lines.iter().skip(from).take(LAST_LINES);
    lines.map(|line| format!("\n  | {line}")).collect()
}

/// Which tests failed and what they said; empty when none did.
pub(super) fn failed(outcomes: &[Outcome]) -> String {
    let failed = outcomes
        .iter()
        .filter(|outcome| outcome.complaint.is_some());
    let lines: Vec<String> = failed
        .map(|outcome| {
            let Outcome {
                test,
                complaint,
                log,
                ..
            } = outcome;
            let said = std::fs::read(log).unwrap_or_default();
            let said = gist(&String::from_utf8_lossy(&said));
            let complaint = complaint.as_deref().unwrap_or_default();
            format!(
                "\n  {} {}: {complaint}: {}{said}",
                test.package,
                test.name,
                log.display()
            )
        })
        .collect();
    match lines.is_empty() {
        true => String::new(),
        false => format!(
            "FAILED: {} of {} lab tests{}",
            lines.len(),
            outcomes.len(),
            lines.concat()
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::lab_test::{Class, LabTest, Leaves};
    use super::*;

    fn outcome(group: &str, complaint: Option<&str>) -> Outcome {
        Outcome {
            test: LabTest {
                name: "light::a".to_owned(),
                class: Class::Light,
                groups: vec![group.to_owned()],
                leaves: Leaves::Somehow,
                package: "drop-check".to_owned(),
                folder: PathBuf::new(),
                program: PathBuf::new(),
            },
            complaint: complaint.map(str::to_owned),
            unmeasured_before: 0,
            log: PathBuf::from("/nowhere/a.log"),
            left: Leaves::Somehow,
            ready: Ready::Reset,
            ready_s: 15.0,
            took_s: 75.0,
        }
    }

    #[test]
    fn each_groups_minutes_are_summed() {
        let outcomes = [
            outcome("one", None),
            outcome("two", Some("x")),
            outcome("one", None),
        ];
        assert_eq!(
            text(&outcomes),
            "lab tests: 2 of 3 passed; one 3.0 min, two 1.5 min\n"
        );
    }

    #[test]
    fn what_failed_is_named_with_its_log() {
        assert_eq!(failed(&[outcome("one", None)]), "");
        assert_eq!(
            failed(&[outcome("one", None), outcome("one", Some("x"))]),
            "FAILED: 1 of 2 lab tests\n  drop-check light::a: x: /nowhere/a.log"
        );
        let line = line(&outcome("one", Some("it ended with exit status: 101")));
        assert!(
            line.starts_with("FAILED  drop-check light::a (75.0 s"),
            "{line}"
        );
        assert!(line.contains("exit status: 101"), "{line}");
    }

    #[test]
    fn the_gist_of_a_failure_begins_where_it_panicked() {
        let before = "a story\n".repeat(20);
        let after = "report\n".repeat(20);
        let gist_of = gist(&format!(
            "{before}thread 'a' panicked at b:1:2:\nleft, right\n{after}"
        ));
        assert!(
            gist_of.starts_with("\n  | thread 'a' panicked at b:1:2:\n  | left, right\n"),
            "{gist_of}"
        );
        assert_eq!(gist_of.lines().count(), 1 + LAST_LINES);
        assert_eq!(
            gist(&before).lines().count(),
            1 + LAST_LINES,
            "the end, without one"
        );
        assert_eq!(gist(""), "");
    }

    #[test]
    fn the_end_of_a_log_is_shown() {
        let text: String = (0..50).map(|n| format!("line {n}\n")).collect();
        let tail = tail(&text);
        assert_eq!(tail.lines().count(), TAIL_LINES);
        assert!(tail.starts_with("  | line 10\n") && tail.ends_with("  | line 49\n"));
    }
}
