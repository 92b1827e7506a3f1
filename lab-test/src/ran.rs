//! What a run of a check came to.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

/// What a run of a check came to: its exit code, its words and its report.
pub struct Ran {
    /// Its exit code.
    pub code: i32,
    /// Its standard output; of a run that said nothing there, what its report says to people.
    pub stdout: String,
    /// Its standard error: the story.
    pub stderr: String,
    /// `report.json`; null when there is none.
    pub report: Value,
}

impl Ran {
    /// Reads the newest report of a folder of reports, and prints the run, for the case that the test fails.
    pub fn of(output: &Output, reports: &Path) -> Ran {
        let latest = reports.join("latest");
        let report = std::fs::read(latest.join("report.json")).unwrap_or_default();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut stdout = text(&output.stdout);
        if stdout.is_empty() {
            // Quiet, and nothing to do about it.
            stdout = std::fs::read_to_string(latest.join("report.txt")).unwrap_or_default();
        }
        let code = output.status.code();
        let ran = Ran {
            code: code.expect("it ended by itself, not by a signal"),
            stdout,
            stderr: text(&output.stderr),
            report: serde_json::from_slice(&report).unwrap_or_default(),
        };
        println!("{}{}", ran.stderr, ran.stdout);
        ran
    }

    /// Asserts exit code, verdict and reason, in the first line and in the report.
    pub fn came_to(&self, code: i32, verdict: &str, reason_id: &str) {
        assert_eq!(self.code, code, "{}", self.stdout);
        let first = self.stdout.lines().next().unwrap_or_default();
        let expected = format!("{} {reason_id}; next: ", verdict.to_uppercase());
        assert!(first.starts_with(&expected), "first line: {first}");
        assert_eq!(self.report["verdict"], verdict);
        assert_eq!(self.report["reason_id"], reason_id);
        assert_eq!(self.report["exit_code"], code);
    }

    /// Asserts that a word stands in what it said.
    pub fn says(&self, word: &str) {
        let text = &self.stdout;
        assert!(text.contains(word), "{word} is missing in: {text}");
    }

    /// The names of the phases, in their order.
    pub fn phases(&self) -> Vec<&str> {
        let phases = self.report["phases"].as_array().unwrap();
        phases.iter().map(|p| p["name"].as_str().unwrap()).collect()
    }

    /// The value of a figure in the first round.
    pub fn figure(&self, id: &str) -> f64 {
        let figures = self.report["figures"].as_array().unwrap();
        let mut found = figures.iter().filter(|figure| figure["id"] == id);
        let figure = found.next().expect("the figure is there");
        figure["rounds"][0].as_f64().unwrap()
    }

    /// Between what a gate's value lies; no upper bound is infinity.
    pub fn measured(&self, gate: &str) -> (f64, f64) {
        let measured = &self.gate(gate)["measured"];
        let bound = |which: &str| measured[which].as_f64().unwrap_or(f64::INFINITY);
        (bound("lower"), bound("upper"))
    }

    /// What became of a gate: `held`, `missed` or `unclear`.
    pub fn outcome(&self, gate: &str) -> &str {
        self.gate(gate)["outcome"].as_str().unwrap()
    }

    fn gate(&self, id: &str) -> &Value {
        let gates = self.report["gates"].as_array().unwrap();
        let gate = gates.iter().find(|gate| gate["id"] == id);
        gate.unwrap_or_else(|| panic!("no gate {id}"))
    }
}
