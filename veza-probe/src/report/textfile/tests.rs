//! Files as the collector finds them, in folders as they may be.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::super::sample;
use super::exposition::METRICS;
use super::*;
use crate::fault::Kind;
use crate::verdict::{Gate, Judgement};

const FILE: &str = "veza_pg_failover_check.prom";

/// A folder that goes away with its test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("veza-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    fn save(&self, report: &Report) -> String {
        save(report, &self.0).unwrap();
        std::fs::read_to_string(self.0.join(FILE)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let files = std::fs::read_dir(&self.0).unwrap();
        files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A sample of a drill on another day.
fn on(day: &str, mut report: Report) -> Report {
    report.started_at = format!("2026-01-{day}T02:30:00Z");
    report.took_s = 10.0;
    report
}

/// The value of the one series that begins so.
fn value(text: &str, begin: &str) -> f64 {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(begin));
    let line = lines.next().unwrap_or_else(|| panic!("{begin}: {text}"));
    assert_eq!(lines.next(), None, "{begin}: {text}");
    let (_, value) = line.rsplit_once(' ').unwrap();
    value.parse().unwrap()
}

/// What the format demands: the series of a name together, after its HELP and TYPE; no two the same.
fn well_formed(text: &str) {
    let mut ended: Vec<&str> = Vec::new();
    let mut seen = Vec::new();
    let mut current = "";
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        let name = match words.as_slice() {
            ["#", "HELP", name, help] if !help.is_empty() => *name,
            ["#", "TYPE", name, "gauge"] => {
                assert_eq!(*name, current, "{line}");
                continue;
            }
            _ => {
                let (name, _) = line.split_once('{').unwrap();
                assert_eq!(name, current, "{line}");
                let (labels, _) = line.rsplit_once("} ").unwrap();
                assert!(!seen.contains(&labels), "twice: {line}");
                seen.push(labels);
                continue;
            }
        };
        assert!(!ended.contains(&name), "{name} stands in two places");
        ended.push(current);
        current = name;
    }
    assert!(text.ends_with('\n') && !seen.is_empty());
}

#[test]
fn a_drill_that_passed() {
    let text = Folder::new("textfile-passed").save(&sample::passed());
    well_formed(&text);
    insta::assert_snapshot!(text);
}

#[test]
fn a_drill_that_failed_with_a_gate_that_has_no_upper_bound() {
    let text = Folder::new("textfile-failed").save(&sample::failed());
    well_formed(&text);
    insta::assert_snapshot!(text);
}

#[test]
fn a_drill_that_was_refused() {
    let text = Folder::new("textfile-refused").save(&sample::refused());
    well_formed(&text);
    insta::assert_snapshot!(text);
}

#[test]
fn the_last_pass_is_kept_until_the_next_one() {
    let folder = Folder::new("textfile-kept");
    let last_pass = |text: &str| value(text, "veza_last_pass_timestamp_seconds{");
    let last_run = |text: &str| value(text, "veza_last_run_timestamp_seconds{");
    let never = folder.save(&on("10", sample::failed()));
    assert_eq!(last_pass(&never), 0.0);
    let passed = folder.save(&on("11", sample::passed()));
    let at = "2026-01-11T02:30:10Z".parse::<Timestamp>().unwrap();
    assert_eq!(last_pass(&passed), at.as_second() as f64);
    for report in [sample::failed(), sample::refused()] {
        let text = folder.save(&on("12", report));
        assert_eq!(last_pass(&text), last_pass(&passed));
        assert_eq!(last_run(&text), last_run(&passed) + 86_400.0);
    }
    let again = folder.save(&on("13", sample::passed()));
    assert_eq!(last_pass(&again), last_pass(&passed) + 2.0 * 86_400.0);
}

#[test]
fn a_pass_in_which_nothing_was_broken_is_not_the_last_pass() {
    let folder = Folder::new("textfile-none");
    let mut report = sample::passed();
    report.fault.as_mut().unwrap().plan.kind = Kind::None;
    let text = folder.save(&report);
    assert_eq!(value(&text, "veza_last_pass_timestamp_seconds{"), 0.0);
    assert_eq!(value(&text, "veza_exit_code{"), 0.0);
    // A check that has no faults at all has passed.
    report.fault = None;
    let text = folder.save(&report);
    assert!(value(&text, "veza_last_pass_timestamp_seconds{") > 0.0);
}

#[test]
fn phases_of_acts_are_named_by_them_and_a_pass_needs_something_broken_in_one() {
    let folder = Folder::new("textfile-acts");
    let mut act = sample::passed();
    act.act = Some("lose".to_owned());
    let mut report = sample::passed();
    (report.fault, report.acts) = (None, vec![act.clone(), act]);
    report.phases.clear();
    report.acts[0].fault.as_mut().unwrap().plan.kind = Kind::None;
    let text = folder.save(&report);
    assert!(value(&text, "veza_last_pass_timestamp_seconds{") > 0.0);
    assert!(text.contains("phase=\"lose/"), "{text}");
    report.acts.truncate(1);
    let folder = Folder::new("textfile-acts-none");
    let text = folder.save(&report);
    assert_eq!(value(&text, "veza_last_pass_timestamp_seconds{"), 0.0);
}

#[test]
fn what_another_system_left_stays_and_what_this_one_left_goes() {
    let folder = Folder::new("textfile-systems");
    let mut other = sample::passed();
    "a \"quoted\" \\ name,\nin {two} lines".clone_into(&mut other.system);
    let alone = folder.save(&other);
    folder.save(&sample::passed());
    let both = folder.save(&sample::refused());
    well_formed(&both);
    for line in alone.lines() {
        assert!(both.lines().any(|l| l == line), "{line} is not in {both}");
    }
    let own = "system=\"formation default/0 in project veza-lab\"";
    let left = both.lines().filter(|line| line.contains(own));
    assert_eq!(left.clone().count(), 4 + VERDICTS.len(), "{both}");
    assert!(!left.clone().any(|line| line.starts_with("veza_gate")));
    // The other way round as well: nothing is lost on the way through a reader and a writer.
    assert_eq!(folder.save(&other).len(), both.len());
}

#[test]
fn hostile_texts_come_through_and_stay_on_their_lines() {
    let folder = Folder::new("textfile-hostile");
    let hostile = "a\"} 1\nveza_exit_code{x=\"\\\r\0\u{1b}[31m ü \\n";
    let mut report = sample::failed();
    let gate = &mut report.gates[0];
    for text in [
        &mut report.system,
        &mut gate.id,
        &mut gate.unit,
        &mut report.phases[0].name,
    ] {
        hostile.clone_into(text);
    }
    let text = folder.save(&report);
    well_formed(&text.replace('\r', " "));
    let read = Series::parse(&text, &report.check).unwrap();
    assert_eq!(read.render(), text);
    assert!(read.get(Family::ExitCode, &report.check, hostile).is_some());
}

#[test]
fn two_of_the_same_name_are_one_series() {
    let mut report = sample::failed();
    report.phases.push(report.phases[0].clone());
    report.gates.push(report.gates[0].clone());
    well_formed(&Folder::new("textfile-twice").save(&report));
}

#[test]
fn a_gate_that_was_not_measured_has_no_value_and_is_not_held() {
    let mut report = sample::passed();
    report.gates = vec![Gate::at_most("rto", "RTO", 60.0, "s", None)];
    let text = Folder::new("textfile-unmeasured").save(&report);
    assert!(!text.contains("veza_gate_value"), "{text}");
    assert_eq!(value(&text, "veza_gate_held{"), 0.0);
    assert_eq!(value(&text, "veza_gate_limit{"), 60.0);
}

#[test]
fn what_is_no_drill_writes_nothing() {
    let folder = Folder::new("textfile-planned");
    for verdict in NO_DRILLS {
        let mut report = sample::passed();
        report.judged(&Judgement::new(verdict, "id", "why", "what"));
        save(&report, &folder.0).unwrap();
        // Not even into a folder that is not there.
        save(&report, &folder.0.join("nowhere")).unwrap();
    }
    assert_eq!(folder.names(), Vec::<String>::new());
}

#[test]
fn each_verdict_of_a_drill_has_its_series() {
    let all = [
        Verdict::Pass,
        Verdict::Refused,
        Verdict::Fail,
        Verdict::MissingTool,
        Verdict::NotUndone,
        Verdict::Inconclusive,
        Verdict::Usage,
        Verdict::Internal,
        Verdict::Interrupted(Signal::Hangup),
    ];
    let folder = Folder::new("textfile-verdicts");
    for verdict in all {
        let mut report = sample::passed();
        report.judged(&Judgement::new(verdict, "id", "why", "what"));
        let text = folder.save(&report);
        let of_verdicts = text.lines().filter(|l| l.starts_with("veza_verdict{"));
        let ones: Vec<&str> = of_verdicts.filter(|l| l.ends_with(" 1")).collect();
        let label = format!("verdict=\"{verdict}\"");
        assert!(ones.len() == 1 && ones[0].contains(&label), "{ones:?}");
        let code = f64::from(verdict.code());
        assert_eq!(value(&text, "veza_exit_code{"), code, "{verdict}");
    }
    let mut report = sample::passed();
    "perhaps".clone_into(&mut report.verdict);
    let error = save(&report, &folder.0).unwrap_err();
    assert!(error.to_string().contains("perhaps"), "{error}");
}

#[test]
fn everyone_may_read_the_file_and_nothing_else_is_left() {
    let folder = Folder::new("textfile-mode");
    // What a run left that was killed while it wrote.
    std::fs::write(folder.0.join(format!("{FILE}.new")), "half").unwrap();
    ready("pg-failover-check", &folder.0).unwrap();
    assert_eq!(folder.names(), Vec::<String>::new());
    folder.save(&sample::passed());
    folder.save(&sample::failed());
    assert_eq!(folder.names(), [FILE]);
    let mode = std::fs::metadata(folder.0.join(FILE))
        .unwrap()
        .permissions();
    assert_eq!(mode.mode() & 0o7777, 0o644);
}

#[test]
fn a_folder_that_can_not_be_written_to_is_told_with_its_path() {
    // A folder that is not there, and one that takes no file: so for root as for anyone.
    for folder in ["/proc/nowhere", "/proc/self"] {
        let folder = Path::new(folder);
        let told = [
            ready("pg-failover-check", folder).unwrap_err(),
            save(&sample::passed(), folder).unwrap_err(),
        ];
        for error in told {
            let words = error.to_string();
            assert!(words.contains(&folder.display().to_string()), "{words}");
        }
    }
}

#[test]
fn a_file_that_was_not_written_here_is_told_and_left_alone() {
    let good = "veza_exit_code{check=\"pg-failover-check\",system=\"s\"} 0\n";
    let common = "check=\"pg-failover-check\",system=\"s\"";
    for bad in [
        "node_load1 0.5\n".to_owned(),
        format!("{good}\n{good}"),
        "# a comment\n".to_owned(),
        format!("veza_unknown{{{common}}} 1\n"),
        format!("veza_exit_code{{{common},more=\"x\"}} 1\n"),
        format!("veza_verdict{{{common}}} 1\n"),
        format!("veza_exit_code{{{common}}} one\n"),
        format!("veza_exit_code{{{common}}} 1 1700000000\n"),
        "veza_exit_code{check=\"another\",system=\"s\"} 0\n".to_owned(),
        "veza_exit_code{check=\"pg-failover-check\",system=\"s\\x\"} 0\n".to_owned(),
        "veza_exit_code{check=\"pg-failover-check\",system=\"s".to_owned(),
    ] {
        let folder = Folder::new("textfile-foreign");
        let path = folder.0.join(FILE);
        std::fs::write(&path, &bad).unwrap();
        let told = [
            ready("pg-failover-check", &folder.0).unwrap_err(),
            save(&sample::passed(), &folder.0).unwrap_err(),
        ];
        for error in told {
            let words = error.to_string();
            assert!(words.contains(FILE) && words.contains("line "), "{words}");
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), bad);
    }
    let folder = Folder::new("textfile-bytes");
    std::fs::write(folder.0.join(FILE), [0xff, 0xfe]).unwrap();
    let error = save(&sample::passed(), &folder.0).unwrap_err();
    assert!(error.to_string().contains(FILE), "{error}");
}

#[test]
fn a_time_that_can_not_be_read_is_told() {
    let folder = Folder::new("textfile-time");
    let mut report = sample::passed();
    report.took_s = f64::NAN;
    assert!(save(&report, &folder.0).is_err());
    report = sample::passed();
    "yesterday".clone_into(&mut report.started_at);
    assert!(save(&report, &folder.0).is_err());
    assert_eq!(folder.names(), Vec::<String>::new());
}

#[test]
fn every_series_is_explained_in_the_documentation() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let page = std::fs::read_to_string(page).unwrap();
    for metric in METRICS {
        let name = metric.name;
        assert!(page.contains(&format!("`{name}")), "{name} is missing");
    }
}
