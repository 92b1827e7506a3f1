//! The report of journals.

use veza_probe::clock::Clock;
use veza_probe::report::{Report, Table};

use super::{figure, of};
use crate::transfer::journal::rows::Sums;
use crate::verdict::status::{Kept, judge};

/// The report of journals.
pub fn assemble(clock: &Clock, all: &[Kept]) -> Report {
    let mut report = of(clock, &judge(all));
    if let Some(first) = all.first() {
        let [source, target, versions] = &first.of;
        report.system = format!("S3 {source} to {target}");
        report.condition("versions", versions);
    }
    let sum =
        |count: fn(&Sums) -> u64| all.iter().map(|kept| count(&kept.sums)).sum::<u64>() as f64;
    let figures = [
        (
            "versions",
            "versions that were copied",
            "",
            sum(|sums| sums.versions),
        ),
        (
            "marks",
            "marks of deletion that were copied",
            "",
            sum(|sums| sums.marks),
        ),
        (
            "bytes",
            "bytes that were copied",
            "B",
            sum(|sums| sums.bytes),
        ),
        (
            "unverified",
            "versions that were not read again",
            "",
            sum(|sums| sums.unverified),
        ),
        (
            "gone",
            "versions that are not on the source any more",
            "",
            sum(|sums| sums.gone),
        ),
        (
            "troubles",
            "keys that could not be copied",
            "",
            sum(|sums| sums.troubles),
        ),
    ];
    report.figures = figures.into_iter().map(figure).collect();
    let columns = [
        "journal",
        "shard",
        "versions",
        "marks",
        "bytes",
        "not read again",
        "in trouble",
        "walks ended",
    ];
    report.tables.push(Table {
        title: "Journals".to_owned(),
        columns: columns.map(str::to_owned).to_vec(),
        rows: all.iter().map(row).collect(),
    });
    report
}

fn row(kept: &Kept) -> Vec<String> {
    let sums = &kept.sums;
    vec![
        kept.file.clone(),
        kept.shard.clone(),
        sums.versions.to_string(),
        sums.marks.to_string(),
        sums.bytes.to_string(),
        sums.unverified.to_string(),
        sums.troubles.to_string(),
        format!("{} of {}", sums.buckets_ended, sums.buckets),
    ]
}
