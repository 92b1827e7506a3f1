//! Puts the report together. Everything in it was measured elsewhere.

pub mod copying;
pub mod planning;
pub mod status;
pub mod cutover;
pub mod rollout;

use veza_probe::clock::Clock;
use veza_probe::report::{Figure, GateOff, Report, Table, Untouched};
use veza_probe::verdict::{Gate, Judgement, Verdict};

use crate::baseline::Baseline;
use crate::cli::{Args, CHECK};
use crate::observation::findings::{Kind, Seen};

/// A report that knows its verdict.
pub fn of(clock: &Clock, judgement: &Judgement) -> Report {
    Report::new(CHECK, clock, judgement)
}

/// The report of a run that ended before anything was compared.
pub fn untouched(clock: &Clock, args: &Args, untouched: Untouched) -> Report {
    let mut report = of(clock, &untouched.judgement);
    report.system = args.system();
    report.condition("version", env!("CARGO_PKG_VERSION"));
    report.tables = untouched.tables;
    report.notes.push("nothing was compared".to_owned());
    report
}

/// What stands in the folder while the run is under way.
pub fn unfinished(clock: &Clock) -> Report {
    let reason = "the run has not ended, or was killed; it writes to no store";
    let judgement = Judgement::new(Verdict::Internal, "unfinished", reason, "run it again");
    of(clock, &judgement)
}

/// The report of a run.
pub fn assemble(
    clock: &Clock,
    args: &Args,
    judgement: &Judgement,
    (baseline, seen, gates): (&Baseline, &Seen, Vec<Gate>),
) -> Report {
    let mut report = of(clock, judgement);
    report.system = args.system();
    report.conditions.clone_from(&baseline.conditions);
    let off = |id: &str, title: &str, flag: &str| GateOff {
        id: id.to_owned(),
        title: title.to_owned(),
        flag: flag.to_owned(),
    };
    if args.allow_unexpected {
        let title = "objects and versions of the target that the source has not";
        report
            .gates_off
            .push(off("unexpected", title, "--allow-unexpected"));
    }
    if args.ignore_buckets {
        report.gates_off.push(off(
            "buckets",
            "settings of buckets that differ",
            "--ignore-buckets",
        ));
    }
    report.gates = gates;
    let took_s = clock.at().0 as f64 / 1e6;
    let figures = [
        ("keys", "keys that both have", "", seen.keys as f64),
        (
            "versions",
            "versions that are the same",
            "",
            seen.same as f64,
        ),
        (
            "bytes",
            "bytes that were read on each side",
            "B",
            seen.bytes as f64,
        ),
        (
            "rate",
            "bytes that were read on each side, each second",
            "B/s",
            seen.bytes as f64 / took_s.max(0.001),
        ),
        (
            "ids",
            "versions whose id is another one",
            "",
            seen.ids as f64,
        ),
        (
            "etags",
            "versions whose ETag is another one",
            "",
            seen.etags as f64,
        ),
    ];
    report.figures = figures.into_iter().map(figure).collect();
    report.tables.extend(table(seen));
    report.notes.extend(notes(args, seen));
    report
}

/// Says of what was seen of a part of the buckets that it is one, before anything else.
pub fn in_part(mut report: Report, args: &Args) -> Report {
    if let Some(words) = args.part() {
        report.reason = format!("of a part ({words}): {}", report.reason);
        report.condition("keys", words);
    }
    report
}

/// A number, measured once.
pub fn figure((id, title, unit, value): (&str, &str, &str, f64)) -> Figure {
    Figure {
        id: id.to_owned(),
        title: title.to_owned(),
        unit: unit.to_owned(),
        rounds: vec![value],
    }
}

/// What is amiss, by name.
fn table(seen: &Seen) -> Option<Table> {
    let mut named = seen.named.clone();
    named.sort_by(|one, other| {
        (one.kind, &one.bucket, &one.key).cmp(&(other.kind, &other.bucket, &other.key))
    });
    let row = |finding: crate::observation::findings::Finding| {
        // A key may hold whatever bytes; a table has lines.
        let key = finding.key.escape_debug().to_string();
        let version = finding.version.unwrap_or_default();
        vec![
            finding.kind.word().to_owned(),
            finding.bucket,
            key,
            version,
            finding.words,
        ]
    };
    (!named.is_empty()).then(|| Table {
        title: "What is amiss".to_owned(),
        columns: ["what", "bucket", "key", "version", "how"]
            .map(str::to_owned)
            .to_vec(),
        rows: named.into_iter().map(row).collect(),
    })
}

fn notes(args: &Args, seen: &Seen) -> Vec<String> {
    let mut notes = Vec::new();
    let all: usize = seen.counts.values().sum();
    if all > seen.named.len() {
        let rest = match &args.findings {
            Some(path) => format!("all of them are in {}", path.display()),
            None => "--findings FILE writes all of them down".to_owned(),
        };
        notes.push(format!(
            "{} of {all} findings are named; {rest}",
            seen.named.len()
        ));
    }
    if seen.ids > 0 {
        notes.push(format!(
            "{} versions have another version id on the target: S3 lets nobody choose one",
            seen.ids
        ));
    }
    if seen.etags > 0 {
        notes.push(format!(
            "{} versions have another ETag on the target: parts of other sizes, or other bytes",
            seen.etags
        ));
    }
    if seen.noted > 0 {
        notes.push(format!(
            "of {} versions the target's bytes were read and hashed now, and the source's when they were copied (the journal)",
            seen.noted
        ));
    }
    if seen.denied > 0 {
        notes.push(format!(
            "{} readings were answered by a node as if there were no such object, which was listed then; they were asked again",
            seen.denied
        ));
    }
    let changed = seen.count(Kind::Changed);
    if changed > 0 {
        notes.push(format!(
            "{changed} objects changed while they were compared, and are no part of the gates"
        ));
    }
    notes.extend(seen.broken.iter().cloned());
    notes.push("not compared: users and policies of users, times of modification".to_owned());
    notes
}
