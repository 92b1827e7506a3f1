//! The report of a plan.

use veza_probe::clock::{Clock, Signal};
use veza_probe::report::{Report, Table};
use veza_probe::verdict::{Judgement, Verdict};

use super::{figure, of};
use crate::baseline::Baseline;
use crate::cli::Args;
use crate::observation::planning::{Planned, Room};

/// The report of a plan, or of why there is none.
pub fn assemble(
    clock: &Clock,
    args: &Args,
    (baseline, planned, room): (&Baseline, &[Planned], Option<Room>),
    ended: Result<(), String>,
    signal: Option<Signal>,
) -> Report {
    let sum = |count: fn(&Planned) -> u64| planned.iter().map(count).sum::<u64>() as f64;
    // A cutover lists the source for the last copy, and both side by side for the last comparison.
    let freeze_s = planned.iter().map(|planned| planned.listing_s).sum::<f64>() * 2.0;
    let judgement = judge((planned, room), baseline, ended, signal);
    let mut report = of(clock, &judgement);
    report.system = args.system();
    report.conditions.clone_from(&baseline.conditions);
    let figures = [
        (
            "keys",
            "keys of the source",
            "",
            sum(|planned| planned.source.keys),
        ),
        (
            "versions",
            "versions of the source",
            "",
            sum(|planned| planned.source.versions),
        ),
        (
            "bytes",
            "bytes of the source",
            "B",
            sum(|planned| planned.source.bytes),
        ),
        (
            "to-copy",
            "versions and marks of keys that the target has not",
            "",
            sum(|planned| planned.to_copy.0),
        ),
        (
            "bytes-to-copy",
            "their bytes",
            "B",
            sum(|planned| planned.to_copy.1),
        ),
        (
            "refused",
            "keys that the target would refuse",
            "",
            sum(|planned| planned.refused_count),
        ),
        (
            "listing",
            "time of listing both stores side by side",
            "s",
            freeze_s / 2.0,
        ),
        (
            "freeze",
            "what the listings of a cutover would take while writers are frozen",
            "s",
            freeze_s,
        ),
    ];
    report.figures = figures.into_iter().map(figure).collect();
    report.notes.push(told(room));
    report.tables = tables(planned);
    report.tables.push(settings(baseline));
    report.tables.retain(|table| !table.rows.is_empty());
    report
        .notes
        .push("nothing was read or written but listings and settings".to_owned());
    report
}

fn settings(baseline: &Baseline) -> Table {
    let differences = baseline.differences.iter();
    Table {
        title: "Settings of buckets that differ".to_owned(),
        columns: ["bucket", "how"].map(str::to_owned).to_vec(),
        rows: differences
            .map(|(bucket, words)| vec![bucket.clone(), words.clone()])
            .collect(),
    }
}

fn judge(
    (planned, room): (&[Planned], Option<Room>),
    baseline: &Baseline,
    ended: Result<(), String>,
    signal: Option<Signal>,
) -> Judgement {
    if let Some(signal) = signal {
        return Judgement::new(
            Verdict::Interrupted(signal),
            "interrupted",
            "nothing was changed",
            "run it again",
        );
    }
    if let Err(words) = ended {
        let reason = format!("a listing broke off: {words}");
        return Judgement::new(
            Verdict::Inconclusive,
            "listing-broken",
            reason,
            "run it again",
        );
    }
    let refused: u64 = planned.iter().map(|planned| planned.refused_count).sum();
    if refused > 0 {
        let reason = format!("the target would refuse {refused} keys");
        let next = "give these objects other keys at the source, or leave them out with --exclude";
        return Judgement::new(Verdict::Refused, "keys-refused", reason, next);
    }
    if let Some(Room { needed, free }) = room.filter(|room| !room.is_enough()) {
        let [needed, free] = [needed, free].map(mib);
        let reason = format!(
            "the copy takes {needed:.0} MiB on the target's drives with parity and metadata, and a tenth more is wanted; they have {free:.0} MiB"
        );
        let next =
            "give the target more drives, or copy less with --bucket, --prefix and --exclude";
        return Judgement::new(Verdict::Refused, "no-room", reason, next);
    }
    if let Some(bucket) = baseline
        .buckets
        .iter()
        .find(|bucket| !bucket.on_target || bucket.loses_versions)
    {
        let name = &bucket.name;
        let why = if bucket.on_target {
            "keeps no versions there, and does on the source"
        } else {
            "is not on the target"
        };
        let reason = format!("{name} {why}");
        let next = "make the bucket there as it is on the source (mc mb, mc version enable)";
        return Judgement::new(Verdict::Refused, "bucket-unready", reason, next);
    }
    let sum = |count: fn(&Planned) -> u64| planned.iter().map(count).sum::<u64>();
    let reason = format!(
        "{} versions and marks, {:.1} MiB, are to be copied; {} keys are on the target alike, {} otherwise",
        sum(|planned| planned.to_copy.0),
        mib(sum(|planned| planned.to_copy.1)),
        sum(|planned| planned.alike),
        sum(|planned| planned.otherwise),
    );
    Judgement::new(Verdict::Planned, "planned", reason, "minio-migrate copy")
}

/// Whether there is room, for people.
fn told(room: Option<Room>) -> String {
    match room {
        Some(Room { needed, free }) => format!(
            "with parity and metadata that takes {:.0} of {:.0} MiB that the target's drives have",
            mib(needed),
            mib(free)
        ),
        None => "the target does not say how much room it has".to_owned(),
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn tables(planned: &[Planned]) -> Vec<Table> {
    let table = |title: &str, columns: &[&str], rows: Vec<Vec<String>>| Table {
        title: title.to_owned(),
        columns: columns.iter().map(|column| (*column).to_owned()).collect(),
        rows,
    };
    let sides = planned.iter().flat_map(|planned| {
        [("source", &planned.source), ("target", &planned.target)].map(|(side, sums)| {
            let numbers = [sums.keys, sums.versions, sums.marks, sums.bytes];
            let names = [planned.bucket.clone(), side.to_owned()];
            names
                .into_iter()
                .chain(numbers.map(|number| number.to_string()))
                .collect()
        })
    });
    let sizes = planned.iter().map(|planned| {
        let [small, middle, held, large] = planned.sizes;
        let numbers = [
            small,
            middle,
            held,
            large,
            planned.in_parts,
            planned.alike,
            planned.otherwise,
            planned.others,
        ];
        let name = planned.bucket.clone();
        std::iter::once(name)
            .chain(numbers.map(|number| number.to_string()))
            .collect()
    });
    let refused = planned.iter().flat_map(|planned| {
        let keys = planned.refused.iter();
        keys.map(|(key, why)| {
            vec![
                planned.bucket.clone(),
                key.escape_debug().to_string(),
                (*why).to_owned(),
            ]
        })
    });
    vec![
        table(
            "What there is",
            &["bucket", "side", "keys", "versions", "marks", "bytes"],
            sides.collect(),
        ),
        table(
            "Versions of the source by size, and keys by what the target has",
            &[
                "bucket",
                "to 128 KiB",
                "to 1 MiB",
                "to 16 MiB",
                "larger",
                "in parts",
                "alike",
                "otherwise",
                "only there",
            ],
            sizes.collect(),
        ),
        table(
            "Keys that the target would refuse",
            &["bucket", "key", "why"],
            refused.collect(),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::Bucket;

    #[test]
    fn what_stands_in_the_way_is_a_refusal() {
        let baseline = |on_target, loses_versions| Baseline {
            buckets: vec![Bucket {
                name: "b".to_owned(),
                on_target,
                loses_versions,
            }],
            differences: Vec::new(),
            conditions: Vec::new(),
        };
        let refused = Planned {
            refused_count: 1,
            ..Planned::default()
        };
        let came = |planned: &[Planned], baseline: &Baseline, ended| {
            judge((planned, None), baseline, ended, None).reason_id
        };
        let good = baseline(true, false);
        assert_eq!(came(&[Planned::default()], &good, Ok(())), "planned");
        assert_eq!(came(&[refused], &good, Ok(())), "keys-refused");
        let room = |free| Some(Room { needed: 100, free });
        let tight = |free| judge((&[], room(free)), &good, Ok(()), None).reason_id;
        assert_eq!([tight(109), tight(110)], ["no-room", "planned"]);
        assert_eq!(came(&[], &good, Err("x".to_owned())), "listing-broken");
        assert_eq!(came(&[], &baseline(false, false), Ok(())), "bucket-unready");
        assert_eq!(came(&[], &baseline(true, true), Ok(())), "bucket-unready");
    }
}
