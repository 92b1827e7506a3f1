//! One value, several writers: everything that a run has to say, as text for people, as JSON for
//! machines, as JUnit XML for CI systems, and as metrics.
//!
//! The JSON is a contract: [`SCHEMA`] names its version; a field is only ever added within one.

mod comparison;
mod folder;
mod text;
mod junit;
pub mod textfile;
mod html;
pub mod keep;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clock::{At, Clock};
use crate::fault::{Fault, HealedStep};
use crate::ledger::Ledger;
use crate::outage::{Interval, Outage, Phase};
use crate::prober::{Outcome, Sample};
use crate::tenure::Overlap;
use crate::verdict::{Gate, Judgement};

pub use comparison::compare;
pub use folder::Folder;
pub use html::render as html;
pub use junit::junit;
pub use text::render as text;

/// The name and version of the JSON report.
pub const SCHEMA: &str = "veza-report/1";

/// Everything that a run has to say. Moments (`*_us`, [`At`]) are microseconds of the run's monotonic
/// clock, which was started at `started_at`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// The check: `pg-failover-check`.
    pub check: String,
    /// The system under test; empty while it is unknown.
    pub system: String,
    /// The word of the verdict.
    pub verdict: String,
    /// The exit code.
    pub exit_code: u8,
    /// A stable word for the reason.
    pub reason_id: String,
    /// The reason in one sentence.
    pub reason: String,
    /// What a person does next.
    pub next: String,
    /// When the run's clock was started, RFC 3339, UTC.
    pub started_at: String,
    /// How long the run took, in seconds.
    pub took_s: f64,
    /// Versions, vantage, timers: whatever has to be equal for two runs to be comparable.
    pub conditions: Vec<Condition>,
    /// The sums that say what the live configuration can promise.
    pub feasibility: Vec<String>,
    /// What was broken, when, and the proof.
    pub fault: Option<Fault>,
    /// What the client saw, in all: from the last success before to the first success after.
    pub client_outage: Option<Interval>,
    /// Each run of failed probes.
    pub outages: Vec<Outage>,
    /// What the system under test did, each from its own source.
    pub phases: Vec<Phase>,
    /// What else happened, in order.
    pub events: Vec<Event>,
    /// The probes, counted.
    pub probes: Option<Probes>,
    /// The probes in order, those with the same outcome in a row as one: enough to draw them.
    #[serde(default)]
    pub probe_runs: Vec<ProbeRun>,
    /// What became of the client's writes; none when it wrote none, or they could not be read.
    #[serde(default)]
    pub ledger: Option<Ledger>,
    /// Times at which two nodes took writes at once: certain ones.
    #[serde(default)]
    pub overlaps: Vec<Overlap>,
    /// Every promise with its limit and value.
    pub gates: Vec<Gate>,
    /// Promises that a flag switched off.
    #[serde(default)]
    pub gates_off: Vec<GateOff>,
    /// Numbers that were measured, whether or not a gate judges them; what `--compare` sets side by side.
    #[serde(default)]
    pub figures: Vec<Figure>,
    /// Curves over the time of the run.
    #[serde(default)]
    pub charts: Vec<Chart>,
    /// What healing did.
    pub undo: Vec<HealedStep>,
    /// Nodes before and after, and the like.
    pub tables: Vec<Table>,
    /// Anything that a reader has to know to judge the figures.
    pub notes: Vec<String>,
    /// The act that this report is of, where it stands in that of a whole run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<String>,
    /// The acts of a run that has several, each with its own fault, phases and undo; the gates of all are above,
    /// named by act.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acts: Vec<Report>,
}

/// A condition under which the figures were taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Condition {
    /// What it is: `PostgreSQL`, `vantage`, `primary_demote_timeout`.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// When it was seen or done, by our clock.
    pub at: At,
    /// What.
    pub what: String,
    /// Who says so.
    pub source: String,
}

/// The probes of a run, counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Probes {
    /// What one probe did.
    pub action: String,
    /// The distance of two due instants.
    pub spacing_us: i64,
    /// The deadline of one probe.
    pub limit_us: i64,
    /// How many were due.
    pub due: usize,
    /// How many succeeded.
    pub succeeded: usize,
    /// How late probes were sent by our own fault: half of them no later than this.
    pub lateness_p50_us: i64,
    /// 99 in 100 no later than this.
    pub lateness_p99_us: i64,
    /// Successful probes: half took no longer than this.
    pub latency_p50_us: Option<i64>,
    /// 99 in 100 took no longer than this.
    pub latency_p99_us: Option<i64>,
    /// The slowest success.
    pub latency_max_us: Option<i64>,
    /// How often each kind of failure was seen.
    pub failures: BTreeMap<String, usize>,
}

/// Probes in a row that came to the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProbeRun {
    /// When the first one was due, by the run's clock.
    pub first_due_us: i64,
    /// When the last one was due.
    pub last_due_us: i64,
    /// When the outcome of the last one was known.
    pub ended_us: i64,
    /// How many there were.
    pub count: u64,
    /// `success`, or the kind of the failure: `no connection`, `no answer in time`, `refused`,
    /// `answered in doubt`, `connection broken`.
    pub outcome: String,
}

/// A promise that was not judged, because a flag said so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GateOff {
    /// The gate's stable word.
    pub id: String,
    /// What is promised.
    pub title: String,
    /// The flag: `--read-only`.
    pub flag: String,
}

/// Joins probes in a row that came to the same, in the order in which they were due.
pub fn probe_runs(samples: &[Sample]) -> Vec<ProbeRun> {
    let mut runs: Vec<ProbeRun> = Vec::new();
    for sample in samples {
        let outcome = match &sample.outcome {
            Outcome::Success => "success".to_owned(),
            Outcome::Failure(failure) => failure.kind.to_string(),
        };
        match runs.last_mut() {
            Some(run) if run.outcome == outcome => {
                run.last_due_us = sample.due.0;
                run.ended_us = sample.end.0;
                run.count += 1;
            }
            _ => runs.push(ProbeRun {
                first_due_us: sample.due.0,
                last_due_us: sample.due.0,
                ended_us: sample.end.0,
                count: 1,
                outcome,
            }),
        }
    }
    runs
}

/// A number that was measured, once for each round of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Figure {
    /// A stable word: `tps`.
    pub id: String,
    /// What it is, for people.
    pub title: String,
    /// Its unit: `/s`, `ms`.
    pub unit: String,
    /// The value of each round, in their order.
    pub rounds: Vec<f64>,
}

impl Figure {
    /// The middle value of all rounds (of an even number, the mean of both in the middle).
    pub fn median(&self) -> Option<f64> {
        let mut sorted = self.rounds.clone();
        sorted.sort_by(f64::total_cmp);
        let upper = sorted.get(sorted.len() / 2)?;
        let lower = sorted.get(sorted.len().saturating_sub(1) / 2)?;
        Some((upper + lower) / 2.0)
    }
}

/// Curves with one axis of values, over the time of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// The unit of the values.
    pub unit: String,
    /// The curves.
    pub curves: Vec<Curve>,
}

/// One curve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Curve {
    /// What it is.
    pub name: String,
    /// Pairs of seconds since the run's clock was started, and value, in the order of time.
    pub points: Vec<[f64; 2]>,
}

/// A small table for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Table {
    /// What it shows.
    pub title: String,
    /// Its columns.
    pub columns: Vec<String>,
    /// Its rows, a text per column.
    pub rows: Vec<Vec<String>>,
}

/// A run that ended before anything was touched, with the tables that show why.
#[derive(Clone, Debug)]
pub struct Untouched {
    /// The verdict with its reason.
    pub judgement: Judgement,
    /// What was found, for people.
    pub tables: Vec<Table>,
    /// The sums, where they are the reason.
    pub feasibility: Vec<String>,
}

impl From<Judgement> for Untouched {
    fn from(judgement: Judgement) -> Untouched {
        Untouched {
            judgement,
            tables: Vec::new(),
            feasibility: Vec::new(),
        }
    }
}

impl Report {
    /// A report that knows nothing but its verdict yet.
    pub fn new(check: &str, clock: &Clock, judgement: &Judgement) -> Report {
        let mut report = Report {
            schema: SCHEMA.to_owned(),
            check: check.to_owned(),
            system: String::new(),
            verdict: String::new(),
            exit_code: 0,
            reason_id: String::new(),
            reason: String::new(),
            next: String::new(),
            started_at: clock.wall(At(0)).to_string(),
            took_s: clock.at().seconds(),
            conditions: Vec::new(),
            feasibility: Vec::new(),
            fault: None,
            client_outage: None,
            outages: Vec::new(),
            phases: Vec::new(),
            events: Vec::new(),
            probes: None,
            probe_runs: Vec::new(),
            ledger: None,
            overlaps: Vec::new(),
            gates: Vec::new(),
            gates_off: Vec::new(),
            figures: Vec::new(),
            charts: Vec::new(),
            undo: Vec::new(),
            tables: Vec::new(),
            notes: Vec::new(),
            act: None,
            acts: Vec::new(),
        };
        report.judged(judgement);
        report
    }

    /// Takes over a verdict with its reason.
    pub fn judged(&mut self, judgement: &Judgement) {
        judgement.verdict.word().clone_into(&mut self.verdict);
        self.exit_code = judgement.verdict.code();
        self.reason_id.clone_from(&judgement.reason_id);
        self.reason.clone_from(&judgement.reason);
        self.next.clone_from(&judgement.next);
    }

    /// Adds a condition.
    pub fn condition(&mut self, name: &str, value: impl Into<String>) {
        self.conditions.push(Condition {
            name: name.to_owned(),
            value: value.into(),
        });
    }

    /// Reads a report back.
    ///
    /// # Errors
    /// A sentence: it is no report, or one of a version that this program does not know.
    pub fn read(text: &str) -> Result<Report, String> {
        let value: serde_json::Value =
            serde_json::from_str(text).map_err(|e| format!("it is no JSON: {e}"))?;
        match value.get("schema").and_then(serde_json::Value::as_str) {
            Some(SCHEMA) => {}
            Some(other) => {
                return Err(format!(
                    "its schema is {other}, and this program reads {SCHEMA}"
                ));
            }
            None => {
                return Err(format!(
                    "it is no report: it has no schema such as {SCHEMA}"
                ));
            }
        }
        serde_json::from_value(value).map_err(|e| format!("it is no whole report: {e}"))
    }

    /// The report as one JSON object, with a line end.
    ///
    /// # Errors
    /// When a value can't be written as JSON (a float that is no number).
    pub fn json(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Writes `report.json`, `report.txt`, `report.xml` (JUnit) and `report.html` into a folder, each
    /// whole or not at all.
    ///
    /// # Errors
    /// With the path, when a file can't be written.
    pub fn save(&self, folder: &Path) -> io::Result<()> {
        std::fs::create_dir_all(folder).map_err(|e| told(folder, &e))?;
        let json = self.json().map_err(io::Error::other)?;
        let xml = junit(self).map_err(io::Error::other);
        let page = html(self).map_err(io::Error::other);
        // The first two say everything: what can't be made of the others must not keep them away.
        for (name, content) in [
            ("report.json", Ok(json)),
            ("report.txt", Ok(text(self))),
            ("report.xml", xml),
            ("report.html", page),
        ] {
            let (path, content) = (folder.join(name), content?);
            replace(&path, content.as_bytes()).map_err(|e| told(&path, &e))?;
        }
        Ok(())
    }
}

/// An error with the path that it is about.
fn told(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Replaces a file as a whole: a reader sees the old or the new one.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let written = write(&new, content).and_then(|()| std::fs::rename(&new, path));
    if written.is_err() {
        // What a full disk took of it is of no use to anyone.
        let _ = std::fs::remove_file(&new);
    }
    written
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    io::Write::write_all(&mut file, content)?;
    file.sync_all()
}

/// Reports to test with.
#[cfg(test)]
pub(crate) mod sample;

/// The JSON Schema of a report, made from its types.
pub fn schema() -> String {
    let mut schema = schemars::schema_for!(Report);
    schema.insert("$id".to_owned(), SCHEMA.into());
    let text = serde_json::to_string_pretty(&schema);
    // A schema is plain JSON: writing it can't fail.
    text.unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Verdict;

    #[test]
    fn the_committed_schema_is_that_of_the_types() {
        let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/report.schema.json");
        let made = std::env::temp_dir().join("report.schema.json");
        std::fs::write(&made, schema()).unwrap();
        let same = std::fs::read_to_string(&committed).is_ok_and(|text| text == schema());
        assert!(
            same,
            "the types of a report changed: look at it, then copy {} to {}",
            made.display(),
            committed.display()
        );
    }

    #[test]
    fn a_report_is_read_back_and_others_are_refused_by_name() {
        let clock = Clock::start();
        let judgement = Judgement::new(Verdict::Fail, "rto-missed", "too long", "runbook");
        let report = Report::new("a-check", &clock, &judgement);
        let text = report.json().unwrap();
        let read = Report::read(&text).unwrap();
        assert_eq!(read.json().unwrap(), text);
        let refused = |text: &str| Report::read(text).unwrap_err();
        assert!(refused("{").contains("no JSON"));
        assert!(refused("{}").contains("no report"));
        let newer = text.replace("veza-report/1", "veza-report/2");
        assert!(refused(&newer).contains("veza-report/2"));
        let half = "{\"schema\": \"veza-report/1\"}";
        assert!(refused(half).contains("no whole report"));
    }

    #[test]
    fn probes_in_a_row_are_one_run() {
        use crate::prober::{Failure, FailureKind};
        let sample = |number: u64, failed: bool| Sample {
            number,
            due: At(number as i64 * 20),
            start: At(number as i64 * 20 + 1),
            end: At(number as i64 * 20 + 5),
            outcome: if failed {
                Outcome::Failure(Failure {
                    kind: FailureKind::Refused,
                    text: "no".into(),
                })
            } else {
                Outcome::Success
            },
        };
        let samples: Vec<_> = (0..10).map(|n| sample(n, (3..6).contains(&n))).collect();
        let runs = probe_runs(&samples);
        let told: Vec<_> = runs
            .iter()
            .map(|r| (r.first_due_us, r.last_due_us, r.count, r.outcome.as_str()))
            .collect();
        let expected = [
            (0, 40, 3, "success"),
            (60, 100, 3, "refused"),
            (120, 180, 4, "success"),
        ];
        assert_eq!(told, expected);
    }
}
