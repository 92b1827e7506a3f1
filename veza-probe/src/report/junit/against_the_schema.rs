//! What we write, held against what others read: the rules of a schema, and a reader that is not the
//! writer's own.
//!
//! There is no standard of JUnit XML. The rules here are those of the schema by which Jenkins' xUnit
//! plugin refuses files (`junit-10.xsd` in jenkinsci/xunit-plugin), in our own words: which element
//! stands in which, its attributes, and the form of times. Beyond them, the counts must be true.

use std::collections::BTreeMap;

use junit_parser::TestStatus;
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::super::{Report, sample};
use super::junit;
use crate::clock::Signal;
use crate::verdict::{Judgement, Verdict};

/// An element, where it may stand, the attributes that it must have, and those that it may have.
type Rule = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
    &'static [&'static str],
);

/// Those that we could come to write.
const RULES: &[Rule] = &[
    (
        "testsuites",
        &[""],
        &[],
        &["name", "time", "tests", "failures", "errors"],
    ),
    (
        "testsuite",
        &["testsuites", "testsuite"],
        &["name", "tests", "failures", "errors"],
        &[
            "group",
            "time",
            "skipped",
            "timestamp",
            "hostname",
            "id",
            "package",
            "file",
            "log",
            "url",
        ],
    ),
    ("properties", &["testsuite"], &[], &[]),
    ("property", &["properties"], &["name", "value"], &[]),
    (
        "testcase",
        &["testsuite"],
        &["name"],
        &["time", "classname", "group"],
    ),
    ("failure", &["testcase"], &[], &["type", "message"]),
    ("error", &["testcase"], &[], &["type", "message"]),
    ("skipped", &["testcase"], &[], &["type", "message"]),
    ("system-out", &["testcase", "testsuite"], &[], &[]),
    ("system-err", &["testcase", "testsuite"], &[], &[]),
];

/// The elements that may hold text.
const WITH_TEXT: [&str; 5] = ["failure", "error", "skipped", "system-out", "system-err"];

/// Digits, perhaps in groups, then perhaps a point and more digits.
fn is_time(text: &str) -> bool {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    digits(whole) && digits(part)
}

/// What is wrong with an element where it stands, and its attributes.
fn element(tag: &BytesStart<'_>, parent: &str) -> Result<BTreeMap<String, String>, String> {
    let name = String::from_utf8_lossy(tag.name().as_ref()).into_owned();
    let rule = RULES.iter().find(|rule| rule.0 == name);
    let Some((_, parents, required, optional)) = rule else {
        return Err(format!("there is no element {name}"));
    };
    if !parents.contains(&parent) {
        return Err(format!("{name} stands in {parent:?}"));
    }
    let mut found = BTreeMap::new();
    for attribute in tag.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        let key = String::from_utf8_lossy(attribute.key.as_ref()).into_owned();
        let value = String::from_utf8_lossy(&attribute.value).into_owned();
        if !required.contains(&key.as_str()) && !optional.contains(&key.as_str()) {
            return Err(format!("{name} has an attribute {key}"));
        }
        if key == "time" && !is_time(&value) {
            return Err(format!("{name} has the time {value}"));
        }
        found.insert(key, value);
    }
    match required.iter().find(|key| !found.contains_key(**key)) {
        Some(missing) => Err(format!("{name} has no {missing}")),
        None => Ok(found),
    }
}

/// Whether XML keeps the rules; what is counted in it is returned, and is what it says itself.
fn checked(xml: &str) -> Result<BTreeMap<String, usize>, String> {
    let mut reader = Reader::from_str(xml);
    let mut open = vec![String::new()];
    let mut counted: BTreeMap<String, usize> = BTreeMap::new();
    let mut said = Vec::new();
    loop {
        let parent = open.last().cloned().unwrap_or_default();
        match reader.read_event().map_err(|error| error.to_string())? {
            event @ (Event::Start(_) | Event::Empty(_)) => {
                let ends = matches!(event, Event::Empty(_));
                let (Event::Start(tag) | Event::Empty(tag)) = event else {
                    continue;
                };
                let attributes = element(&tag, &parent)?;
                let name = String::from_utf8_lossy(tag.name().as_ref()).into_owned();
                *counted.entry(name.clone()).or_default() += 1;
                if name.starts_with("testsuite") {
                    said.push(attributes);
                }
                if !ends {
                    open.push(name);
                }
            }
            Event::End(_) => {
                open.pop();
            }
            Event::Text(text) => {
                let blank = text.iter().all(u8::is_ascii_whitespace);
                if !blank && !WITH_TEXT.contains(&parent.as_str()) {
                    return Err(format!("{parent} holds text"));
                }
            }
            Event::Eof => break,
            _ => {}
        }
    }
    let counts = [
        ("tests", "testcase"),
        ("failures", "failure"),
        ("errors", "error"),
        ("skipped", "skipped"),
    ];
    for attributes in said {
        for (attribute, element) in counts {
            let is = counted.get(element).copied().unwrap_or(0).to_string();
            if attributes.get(attribute).is_some_and(|said| *said != is) {
                return Err(format!("{attribute}: {attributes:?}, and there are {is}"));
            }
        }
    }
    Ok(counted)
}

/// Reports of every kind, by what they are.
fn all() -> Vec<(&'static str, Report)> {
    let mut hostile = sample::failed();
    let text = "a ]]> <b skipped=\"9\"> & > \"c\" 'd' \u{1}\u{fffe}\n skipped=\"9\" f";
    let gate = &mut hostile.gates[0];
    for place in [
        &mut hostile.check,
        &mut hostile.system,
        &mut hostile.reason,
        &mut hostile.next,
        &mut gate.id,
        &mut gate.title,
        &mut hostile.gates_off[0].flag,
    ] {
        text.clone_into(place);
    }
    let mut long = sample::passed();
    long.took_s = 123_456.789;
    let mut interrupted = sample::passed();
    let signal = Verdict::Interrupted(Signal::Terminate);
    interrupted.judged(&Judgement::new(signal, "interrupted", "why", "what"));
    vec![
        ("passed", sample::passed()),
        ("failed, with gates off", sample::failed()),
        ("refused", sample::refused()),
        ("interrupted", interrupted),
        ("hostile", hostile),
        ("long", long),
    ]
}

#[test]
fn every_report_keeps_the_rules_and_counts_right() {
    for (what, report) in all() {
        let xml = junit(&report).unwrap();
        let counted = checked(&xml).unwrap_or_else(|words| panic!("{what}: {words}\n{xml}"));
        let cases = report.gates.len() + report.gates_off.len() + 1;
        assert_eq!(counted["testcase"], cases, "{what}");
        assert_eq!(counted["testsuites"], 1, "{what}");
    }
}

#[test]
fn what_breaks_a_rule_is_found() {
    let good = junit(&sample::failed()).unwrap();
    assert!(checked(&good).is_ok());
    let suite = "<testsuite name";
    for (from, to, word) in [
        (
            "<testsuites ",
            "<testsuites skipped=\"3\" ",
            "attribute skipped",
        ),
        (
            "<testsuites ",
            "<testsuites timestamp=\"now\" ",
            "attribute timestamp",
        ),
        (suite, "<testsuite label=\"x\" name", "attribute label"),
        (
            " errors=\"1\" failures=\"2\" t",
            " errors=\"1\" t",
            "no failures",
        ),
        ("time=\"198.250\"", "time=\"198.250 s\"", "the time"),
        ("tests=\"6\"", "tests=\"7\"", "there are 6"),
        ("<failure ", "<failed/><failure ", "no element failed"),
        ("<properties>", "<properties>text", "holds text"),
        ("</properties>", "</property>", "property"),
        (
            "<testcase ",
            "<property name=\"a\" value=\"b\"/><testcase ",
            "stands in",
        ),
    ] {
        let broken = good.replacen(from, to, 1);
        assert_ne!(broken, good, "{from}");
        let words = checked(&broken).unwrap_err();
        assert!(words.contains(word), "{word}: {words}");
    }
}

#[test]
fn another_reader_finds_what_was_written() {
    for (what, report) in all() {
        let xml = junit(&report).unwrap();
        let read = junit_parser::from_reader(xml.as_bytes()).unwrap();
        let [suite] = read.suites.as_slice() else {
            panic!("{what}: {read:?}")
        };
        assert!((suite.time - report.took_s).abs() < 0.001, "{what}");
        let told = &suite.properties.hashmap["verdict"];
        assert_eq!(*told, report.verdict, "{what}");
        let cases = suite.cases.iter();
        let red = |status: &TestStatus| !matches!(status, TestStatus::Success);
        let [.., verdict] = suite.cases.as_slice() else {
            panic!("{what}: no cases")
        };
        assert_eq!(red(&verdict.status), report.verdict != "pass", "{what}");
        let skipped = cases.filter(|c| c.status.is_skipped()).count();
        assert_eq!(skipped, report.gates_off.len(), "{what}");
        if let TestStatus::Error(error) = &verdict.status {
            assert_eq!(error.error_type, report.verdict, "{what}");
            assert_eq!(error.message, report.reason, "{what}");
        }
    }
}
