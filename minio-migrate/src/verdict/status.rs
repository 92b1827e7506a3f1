//! Judges journals: whether together they are one migration, complete and read again. Pure.

use std::collections::BTreeMap;

use veza_probe::verdict::{Judgement, Verdict};

use crate::transfer::journal::rows::Sums;

/// What a journal says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Its file.
    pub file: String,
    /// Source, target, which versions.
    pub of: [String; 3],
    /// `I/N`.
    pub shard: String,
    /// Its sums.
    pub sums: Sums,
}

impl Kept {
    fn share(&self) -> Option<(u32, u32)> {
        let (one, all) = self.shard.split_once('/')?;
        Some((one.parse().ok()?, all.parse().ok()?))
    }
}

/// What all of them come to.
pub fn judge(all: &[Kept]) -> Judgement {
    let open = |reason_id: &str, reason: String, next: &str| {
        Judgement::new(Verdict::Inconclusive, reason_id, reason, next)
    };
    let Some(first) = all.first() else {
        return open(
            "no-journal",
            "there is no journal".to_owned(),
            "look at --journals and --journal",
        );
    };
    if let Some(other) = all.iter().find(|kept| kept.of != first.of) {
        let reason = format!(
            "{} is of {}, and {} of {}",
            first.file,
            first.of.join(", "),
            other.file,
            other.of.join(", ")
        );
        return open("other-migration", reason, "look at one migration at a time");
    }
    if let Some(judgement) = shards(all) {
        return judgement;
    }
    let sum = |count: fn(&Sums) -> u64| all.iter().map(|kept| count(&kept.sums)).sum::<u64>();
    let unended = all
        .iter()
        .filter(|kept| kept.sums.buckets == 0 || kept.sums.buckets_ended < kept.sums.buckets);
    let unended: Vec<&str> = unended.map(|kept| kept.file.as_str()).collect();
    if !unended.is_empty() {
        let reason = format!("not walked to the end: {}", unended.join(", "));
        return open(
            "walk-unfinished",
            reason,
            "minio-migrate copy with that journal goes on",
        );
    }
    let troubles = sum(|sums| sums.troubles);
    if troubles > 0 {
        let reason = format!("{troubles} keys could not be copied");
        return open("keys-left", reason, "minio-migrate copy tries them again");
    }
    let (versions, unverified) = (sum(|sums| sums.versions), sum(|sums| sums.unverified));
    if unverified > 0 {
        let reason =
            format!("{unverified} of {versions} versions were not read again from the target");
        return open(
            "unverified",
            reason,
            "minio-migrate verify with that journal",
        );
    }
    if versions + sum(|sums| sums.marks) == 0 {
        let reason = "nothing was copied".to_owned();
        return open(
            "nothing-copied",
            reason,
            "look at --bucket and --prefix of the copy",
        );
    }
    let reason = format!(
        "{versions} versions and {} marks of deletion in {} journals, all read again from the target",
        sum(|sums| sums.marks),
        all.len()
    );
    Judgement::new(Verdict::Pass, "complete", reason, "minio-migrate cutover")
}

/// Whether every share is there, once.
fn shards(all: &[Kept]) -> Option<Judgement> {
    let mut seen: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
    let mut count = None;
    for kept in all {
        let Some((one, shards)) = kept.share() else {
            let reason = format!("{}: shard {:?}", kept.file, kept.shard);
            return Some(Judgement::new(
                Verdict::Inconclusive,
                "shard-unknown",
                reason,
                "look at that file",
            ));
        };
        if *count.get_or_insert(shards) != shards {
            let reason = format!(
                "{} is one of {shards} shards, and others are of another number",
                kept.file
            );
            let next = "keep the journals of one run of shards in a folder";
            return Some(Judgement::new(
                Verdict::Inconclusive,
                "shards-differ",
                reason,
                next,
            ));
        }
        seen.entry(one).or_default().push(&kept.file);
    }
    let shards = count.unwrap_or(1);
    if let Some((one, files)) = seen.iter().find(|(_, files)| files.len() > 1) {
        let reason = format!(
            "shard {one}/{shards} is there {} times: {}",
            files.len(),
            files.join(", ")
        );
        let next = "keep the one that was run last, and see who ran the other";
        return Some(Judgement::new(
            Verdict::Inconclusive,
            "shard-doubled",
            reason,
            next,
        ));
    }
    let missing: Vec<String> = (1..=shards)
        .filter(|one| !seen.contains_key(one))
        .map(|one| format!("{one}/{shards}"))
        .collect();
    (!missing.is_empty()).then(|| {
        let reason = format!("no journal of shard {}", missing.join(", "));
        let next = "run minio-migrate copy with that --shard, or bring its journal here";
        Judgement::new(Verdict::Inconclusive, "shard-missing", reason, next)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(shard: &str) -> Kept {
        Kept {
            file: format!("{}.sqlite", shard.replace('/', "of")),
            of: ["old".to_owned(), "new".to_owned(), "all".to_owned()],
            shard: shard.to_owned(),
            sums: Sums {
                versions: 5,
                buckets: 1,
                buckets_ended: 1,
                ..Sums::default()
            },
        }
    }

    fn came_to(all: &[Kept]) -> (Verdict, String) {
        let judgement = judge(all);
        (judgement.verdict, judgement.reason_id)
    }

    #[test]
    fn all_shards_once_and_verified_are_complete() {
        let all = [kept("1/2"), kept("2/2")];
        assert_eq!(came_to(&all), (Verdict::Pass, "complete".to_owned()));
        assert_eq!(came_to(&[kept("1/1")]).0, Verdict::Pass);
    }

    #[test]
    fn whatever_is_missing_is_told() {
        let open = |all: &[Kept], reason_id: &str| {
            assert_eq!(came_to(all), (Verdict::Inconclusive, reason_id.to_owned()));
        };
        open(&[], "no-journal");
        open(&[kept("2/2")], "shard-missing");
        open(&[kept("1/2"), kept("2/2"), kept("2/2")], "shard-doubled");
        open(&[kept("1/2"), kept("2/3")], "shards-differ");
        let with = |change: fn(&mut Kept)| {
            let mut other = kept("2/2");
            change(&mut other);
            [kept("1/2"), other]
        };
        open(
            &with(|kept| kept.of[0] = "else".to_owned()),
            "other-migration",
        );
        open(&with(|kept| kept.sums.buckets_ended = 0), "walk-unfinished");
        open(&with(|kept| kept.sums.troubles = 1), "keys-left");
        open(&with(|kept| kept.sums.unverified = 1), "unverified");
        open(&with(|kept| kept.shard = "x".to_owned()), "shard-unknown");
    }
}
