//! The report of a cutover: the evidence on one screen.

use veza_probe::clock::Clock;
use veza_probe::report::{Report, Table};
use veza_probe::verdict::{Gate, Judgement};

use super::{figure, of};
use crate::baseline::Baseline;
use crate::cli::Args;
use crate::observation::findings::Seen;
use crate::observation::fitness::Fitness;
use crate::observation::uploads::Uploads;
use crate::verdict::cutover::{Evidence, Frozen, UnderWay};

/// What else is told.
#[derive(Debug, Default)]
pub struct Told {
    /// How long the freeze was expected to take, in seconds.
    pub predicted_s: Option<f64>,
    /// Versions and marks that were copied before the freeze, and in it.
    pub copied: (u64, u64),
    /// What became of the freeze, in words.
    pub freeze: Vec<String>,
}

/// The report of a cutover.
pub fn assemble(
    clock: &Clock,
    args: &Args,
    judgement: &Judgement,
    (baseline, evidence, gates, told): (&Baseline, &Evidence, Vec<Gate>, Told),
) -> Report {
    let mut report = of(clock, judgement);
    report.system = args.system();
    report.conditions.clone_from(&baseline.conditions);
    report.condition("writers", args.cutting.writers.join(", "));
    report.condition("accepted losses", evidence.accepted.join(", "));
    report.gates = gates;
    let mut figures = vec![
        (
            "copied",
            "versions and marks that were copied before the freeze",
            "",
            told.copied.0 as f64,
        ),
        (
            "delta",
            "versions and marks that were copied in the freeze",
            "",
            told.copied.1 as f64,
        ),
    ];
    if let Some(predicted_s) = told.predicted_s {
        figures.push((
            "predicted",
            "how long a rehearsal says that the freeze takes",
            "s",
            predicted_s,
        ));
    }
    if let Some(freeze_s) = evidence.freeze_s.0 {
        figures.push((
            "freeze",
            "how long the writers were frozen until everything was known: the outage",
            "s",
            freeze_s,
        ));
    }
    report.figures = figures.into_iter().map(figure).collect();
    report.tables.push(table(evidence));
    report
        .tables
        .extend(evidence.seen.as_ref().and_then(super::table));
    report.notes.extend(told.freeze);
    if let Some(seen) = &evidence.seen {
        report.notes.extend(super::notes(args, seen));
    }
    report
}

fn table(evidence: &Evidence) -> Table {
    let rows = of_copy(evidence).into_iter().chain(of_ends(evidence));
    Table {
        title: "Evidence".to_owned(),
        columns: ["what", "how it is"].map(str::to_owned).to_vec(),
        rows: rows.map(|(what, how)| vec![what.to_owned(), how]).collect(),
    }
}

fn unknown() -> String {
    "not known".to_owned()
}

fn of_copy(evidence: &Evidence) -> Vec<(&'static str, String)> {
    let seen = evidence.seen.as_ref();
    let same = |seen: &Seen| {
        let all = seen.same + seen.verified_before;
        format!("{all}, of these {} in the last comparison", seen.same)
    };
    let losses = evidence.losses.iter();
    let losses: Vec<String> = losses
        .map(|(name, count)| format!("{name}: {count}"))
        .collect();
    vec![
        (
            "keys on both",
            seen.map_or_else(unknown, |seen| seen.keys.to_string()),
        ),
        (
            "versions read again, the same",
            seen.map_or_else(unknown, same),
        ),
        (
            "marks of deletion",
            seen.map_or_else(unknown, |seen| seen.marks.to_string()),
        ),
        ("lost", losses.join(", ")),
    ]
}

fn of_ends(evidence: &Evidence) -> Vec<(&'static str, String)> {
    let fitness = evidence.fitness.as_ref();
    let writers = match &evidence.frozen {
        Frozen::Proven(count) => {
            format!(
                "{count} frozen: each is refused to write, delete and begin an upload with its own login"
            )
        }
        Frozen::NotAsked => "not frozen".to_owned(),
        Frozen::No(words) => format!("not frozen: {words}"),
    };
    let uploads = |uploads: &Uploads| {
        let Uploads { left, moved } = uploads;
        let moved = moved.len();
        format!("{left} left open, {moved} went on meanwhile, as far as the source's nodes know")
    };
    let under_way = match &evidence.under_way {
        UnderWay::Done => {
            "none: what was let in before the freeze was served to its end".to_owned()
        }
        UnderWay::Seen(_, words) => words.clone(),
        UnderWay::Unknown(words) => format!("not known: {words}"),
        UnderWay::NotAsked => "not known: nobody was frozen".to_owned(),
    };
    let nodes = |fitness: &Fitness| format!("{} of {}", fitness.nodes.1, fitness.nodes.0);
    let drives = |fitness: &Fitness| {
        let Fitness { drives, set, .. } = fitness;
        format!(
            "{} of {}, sets of {} with EC:{}",
            drives.1, drives.0, set.0, set.1
        )
    };
    let whole =
        |fitness: &Fitness| format!("{} of {}", fitness.looked - fitness.lacking, fitness.looked);
    vec![
        ("writers", writers),
        ("writes under way", under_way),
        (
            "open uploads",
            evidence.uploads.as_ref().map_or_else(unknown, uploads),
        ),
        ("nodes of the target", fitness.map_or_else(unknown, nodes)),
        ("drives of the target", fitness.map_or_else(unknown, drives)),
        (
            "versions with every shard",
            fitness.map_or_else(unknown, whole),
        ),
    ]
}
