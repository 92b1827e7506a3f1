//! The report as JUnit XML, which CI systems show as tests: a case per gate, and one for the verdict.
//!
//! Whatever is not a pass makes the case `verdict` red, `planned` and `clean` as well: nothing was
//! proven, and a job that runs `--recover` or `--dry-run` by mistake must not look like a drill that
//! passes every night.

use std::time::Duration;

use quick_junit::{
    NonSuccessKind, Property, SerializeError, TestCase, TestCaseStatus, TestSuite, XmlString,
};

use super::text::{number, value};
use super::{GateOff, Report};
use crate::verdict::{Bound, Gate, Outcome, Verdict};

/// The report as one JUnit test suite, named for the check. A start or length that can't be read is
/// left out: a report without a time is better than none.
///
/// # Errors
/// When the text can't be written as XML.
pub fn junit(report: &Report) -> Result<String, SerializeError> {
    let mut suite = TestSuite::new(text(&report.check));
    suite.timestamp = report.started_at.parse().ok();
    suite.time = Duration::try_from_secs_f64(report.took_s).ok();
    for (name, value) in [
        ("system", report.system.as_str()),
        ("verdict", report.verdict.as_str()),
        ("exit-code", report.exit_code.to_string().as_str()),
        ("reason-id", report.reason_id.as_str()),
        ("reason", report.reason.as_str()),
        ("next", report.next.as_str()),
    ] {
        suite.add_property(Property::new(name, text(value)));
    }
    let gates = report.gates.iter().map(|gate| (&gate.id, of_gate(gate)));
    let off = report.gates_off.iter().map(|off| (&off.id, switched(off)));
    let verdict = ("verdict".to_owned(), of_verdict(report));
    for (name, status) in gates.chain(off).chain([(&verdict.0, verdict.1)]) {
        let mut case = TestCase::new(text(name), status);
        case.set_classname(text(&report.check));
        suite.add_test_case(case);
    }
    let mut all = quick_junit::Report::new(text(&report.check));
    all.time = suite.time;
    all.add_test_suite(suite);
    Ok(as_the_schema_has_it(&all.to_string()?))
}

/// Without the sum of skipped cases in the outermost element: Jenkins' xUnit plugin refuses a file that
/// has it, by its schema; the suite has the same number. The crate always writes it.
fn as_the_schema_has_it(xml: &str) -> String {
    let Some(from) = xml.find("<testsuites ") else {
        return xml.to_owned();
    };
    // In a value a quotation mark is escaped, so nothing in a name looks like this.
    let (before, outermost) = xml.split_at(from);
    let end = outermost.find('>').unwrap_or(outermost.len());
    let (tag, rest) = outermost.split_at(end);
    let Some((head, tail)) = tag.split_once(" skipped=\"") else {
        return xml.to_owned();
    };
    let tail = tail.split_once('"').map_or("", |(_, tail)| tail);
    format!("{before}{head}{tail}{rest}")
}

/// Text without what XML can't hold; the crate itself takes away control characters alone.
fn text(raw: &str) -> XmlString {
    XmlString::new(raw.replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}"))
}

fn of_gate(gate: &Gate) -> TestCaseStatus {
    let (kind, word) = match gate.outcome {
        Outcome::Held => return TestCaseStatus::success(),
        Outcome::Missed => (NonSuccessKind::Failure, "missed"),
        Outcome::Unclear => (NonSuccessKind::Error, "unclear"),
    };
    let unit = &gate.unit;
    let measured = match gate.measured {
        Some(measured) => format!("measured {} {unit}", value(measured)),
        None => "not measured".to_owned(),
    };
    let bound = match gate.bound {
        Bound::AtMost => "limit",
        Bound::AtLeast => "at least",
    };
    let message = format!("{bound} {} {unit}, {measured}", number(gate.limit));
    red(kind, word, &message, &gate.title)
}

fn switched(off: &GateOff) -> TestCaseStatus {
    let mut status = TestCaseStatus::skipped();
    status.set_message(text(&off.flag));
    status.set_description(text(&off.title));
    status
}

fn of_verdict(report: &Report) -> TestCaseStatus {
    let word = report.verdict.as_str();
    let kind = if word == Verdict::Pass.word() {
        return TestCaseStatus::success();
    } else if word == Verdict::Fail.word() {
        NonSuccessKind::Failure
    } else {
        NonSuccessKind::Error
    };
    let next = format!("{}; next: {}", report.reason_id, report.next);
    red(kind, word, &report.reason, &next)
}

fn red(kind: NonSuccessKind, word: &str, message: &str, description: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind);
    status.set_type(text(word));
    status.set_message(text(message));
    status.set_description(text(description));
    status
}

#[cfg(test)]
mod against_the_schema;

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::clock::Signal;
    use crate::verdict::Judgement;

    /// Reads it back with a real parser, which refuses what is not well-formed.
    fn read(report: &Report) -> quick_junit::Report {
        quick_junit::Report::deserialize_from_str(&junit(report).unwrap()).unwrap()
    }

    fn status<'a>(read: &'a quick_junit::Report, case: &str) -> &'a TestCaseStatus {
        let cases = &read.test_suites[0].test_cases;
        let case = cases.iter().find(|c| c.name.as_str() == case);
        &case.unwrap().status
    }

    #[test]
    fn a_drill_that_passed() {
        insta::assert_snapshot!(junit(&sample::passed()).unwrap());
    }

    #[test]
    fn a_drill_that_failed_with_a_gate_unclear_and_three_off() {
        insta::assert_snapshot!(junit(&sample::failed()).unwrap());
    }

    #[test]
    fn a_drill_that_was_refused() {
        insta::assert_snapshot!(junit(&sample::refused()).unwrap());
    }

    #[test]
    fn only_a_pass_is_green() {
        for verdict in [
            Verdict::Pass,
            Verdict::Refused,
            Verdict::Fail,
            Verdict::MissingTool,
            Verdict::NotUndone,
            Verdict::Inconclusive,
            Verdict::Usage,
            Verdict::Internal,
            Verdict::Interrupted(Signal::Terminate),
            Verdict::Planned,
            Verdict::Clean,
        ] {
            let mut report = sample::passed();
            report.judged(&Judgement::new(verdict, "id", "why", "what"));
            let read = read(&report);
            let expected = match verdict {
                Verdict::Pass => (0, 0),
                Verdict::Fail => (1, 0),
                _ => (0, 1),
            };
            assert_eq!((read.failures, read.errors), expected, "{verdict}");
            if let TestCaseStatus::NonSuccess { ty, message, .. } = status(&read, "verdict") {
                assert_eq!(ty.as_deref(), Some(verdict.word()));
                assert_eq!(message.as_deref(), Some("why"));
            }
        }
    }

    #[test]
    fn a_gate_that_was_not_measured_is_an_error() {
        let mut report = sample::passed();
        report.gates = vec![Gate::at_most("rto", "RTO", 60.0, "s", None)];
        let read = read(&report);
        let TestCaseStatus::NonSuccess { message, kind, .. } = status(&read, "rto") else {
            panic!("{read:?}")
        };
        assert_eq!(*kind, NonSuccessKind::Error);
        assert_eq!(message.as_deref(), Some("limit 60 s, not measured"));
    }

    #[test]
    fn hostile_texts_are_well_formed_and_keep_their_words() {
        let hostile =
            "a ]]> <b> & \"c\" 'd' \0\u{8}\u{b}\u{1f}\u{7f}\u{fffe}\u{ffff} \u{1b}[31me\tf ü";
        let mut report = sample::failed();
        let [first, second] = report.gates.as_mut_slice() else {
            panic!()
        };
        for text in [
            &mut report.check,
            &mut report.system,
            &mut report.reason_id,
            &mut report.reason,
            &mut report.next,
            &mut first.id,
            &mut first.title,
            &mut second.unit,
            &mut report.gates_off[0].flag,
        ] {
            hostile.clone_into(text);
        }
        let written = junit(&report).unwrap();
        let illegal = |c: char| {
            (c.is_control() && !"\t\n\r\u{7f}".contains(c)) || "\u{fffe}\u{ffff}".contains(c)
        };
        assert!(!written.contains(illegal), "{written:?}");
        assert!(!written.contains("]]>"), "{written}");
        let read = read(&report);
        let name = read.test_suites[0].name.as_str();
        assert!(name.starts_with("a ]]> <b> & \"c\" 'd' "), "{name:?}");
        assert!(name.ends_with("f ü"), "{name:?}");
    }

    #[test]
    fn times_that_can_not_be_read_are_left_out() {
        let mut report = sample::passed();
        report.started_at = "yesterday".to_owned();
        report.took_s = f64::NAN;
        let read = read(&report);
        let suite = &read.test_suites[0];
        assert_eq!((suite.timestamp, suite.time), (None, None));
    }
}
