//! The report of a copy.

use veza_probe::clock::Clock;
use veza_probe::report::{Figure, Report, Table};
use veza_probe::verdict::Judgement;

use super::{figure, of};
use crate::baseline::Baseline;
use crate::cli::Args;
use crate::transfer::flow::Counts;
use crate::transfer::journal::Journal;
use crate::transfer::journal::rows::Sums;

/// How many keys are named; all of them are in the journal.
const NAMED: usize = 50;

/// The report of a copy.
pub fn assemble(
    clock: &Clock,
    args: &Args,
    judgement: &Judgement,
    (baseline, counts, journal): (&Baseline, &Counts, &Journal),
) -> Report {
    let mut report = of(clock, judgement);
    report.system = args.system();
    report.conditions.clone_from(&baseline.conditions);
    let path = journal.path().display();
    let shard = args.copying.shard;
    report.condition("shard", format!("{}/{}", shard.0, shard.1));
    report.condition("memory", format!("{} B", args.copying.memory.0));
    report.figures = figures(counts, clock.at().seconds().max(0.001));
    report.notes.push(format!(
        "the journal is {path}; SELECT * FROM objects has it for people"
    ));
    let mut table = |title: &str, rows: Result<Vec<(String, String, String)>, String>| match rows {
        Ok(rows) if rows.is_empty() => {}
        Ok(rows) => report.tables.push(Table {
            title: title.to_owned(),
            columns: ["bucket", "key", "why"].map(str::to_owned).to_vec(),
            rows: rows.into_iter().map(row).collect(),
        }),
        Err(words) => report.notes.push(words),
    };
    table("Keys that could not be copied", journal.troubles(NAMED));
    table("What the target could not take", journal.losses(NAMED));
    if let Ok(sums) = journal.sums() {
        report.notes.push(told(&sums));
    }
    if counts.gone > counts.removed {
        report.notes.push(format!(
            "{} versions that were copied are not on the source any more; they are still on the target (--delete-extraneous)",
            counts.gone - counts.removed
        ));
    }
    report
}

fn figures(counts: &Counts, seconds: f64) -> Vec<Figure> {
    let figures = [
        ("keys", "keys that were seen", "", counts.keys as f64),
        (
            "versions",
            "versions that were copied",
            "",
            counts.versions as f64,
        ),
        (
            "marks",
            "marks of deletion that were copied",
            "",
            counts.marks as f64,
        ),
        ("bytes", "bytes that were copied", "B", counts.bytes as f64),
        (
            "unchanged",
            "keys that were on the target already",
            "",
            counts.unchanged as f64,
        ),
        (
            "found",
            "versions that an earlier run had written and not written down",
            "",
            counts.found as f64,
        ),
        (
            "gone",
            "versions that are not on the source any more",
            "",
            counts.gone as f64,
        ),
        (
            "removed",
            "versions of these that were removed from the target",
            "",
            counts.removed as f64,
        ),
        (
            "troubles",
            "keys that could not be copied",
            "",
            counts.troubles as f64,
        ),
        (
            "versions-rate",
            "versions that were copied each second",
            "/s",
            counts.versions as f64 / seconds,
        ),
        (
            "bytes-rate",
            "bytes that were copied each second",
            "B/s",
            counts.bytes as f64 / seconds,
        ),
        (
            "at-once",
            "the most objects under way at the same time",
            "",
            counts.peak as f64,
        ),
    ];
    figures.into_iter().map(figure).collect()
}

fn row((bucket, key, words): (String, String, String)) -> Vec<String> {
    vec![bucket, key.escape_debug().to_string(), words]
}

/// A journal's sums in a sentence.
pub fn told(sums: &Sums) -> String {
    format!(
        "in the journal: {} versions, {} marks of deletion, {} bytes; {} versions were not read again; {} keys in trouble",
        sums.versions, sums.marks, sums.bytes, sums.unverified, sums.troubles
    )
}
