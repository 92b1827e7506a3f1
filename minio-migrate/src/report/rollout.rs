//! What comes after a copy that was compared: the steps until nobody needs the old store, with this migration's names in them.

use veza_probe::report::Table;

use crate::baseline::Baseline;
use crate::cli::{Args, Versions, cutting};
use crate::observation::findings::Seen;

/// The command that decides, and every step. None where only a part was copied: a cutover is about whole buckets.
pub fn steps(args: &Args, baseline: &Baseline, seen: &Seen) -> Option<(String, Table)> {
    let source = args.source.as_ref()?;
    if args.part().is_some() || args.copying.shard.1 > 1 {
        return None;
    }
    let names = baseline.buckets.iter().map(|bucket| bucket.name.as_str());
    let targets = args.targets.iter().map(|target| target.url.as_str());
    let targets = targets.collect::<Vec<_>>().join(",");
    let mut same = format!(
        "--source-endpoint {} --target-endpoint {targets}",
        source.url
    );
    for name in names {
        same.push_str(&format!(" --bucket {name}"));
    }
    if args.versions == Versions::Latest {
        same.push_str(" --versions latest");
    }
    if let Some(journal) = &args.copying.journal {
        same.push_str(&format!(" --journal {}", journal.display()));
    }
    let etags = (seen.etags > 0).then_some("etag");
    let losses: Vec<&str> = cutting::ALWAYS.into_iter().chain(etags).collect();
    let writers = match args.cutting.writers.as_slice() {
        [] => "KEY".to_owned(),
        writers => writers.join(","),
    };
    let secrets = args.cutting.writer_secrets.as_ref();
    let secrets = secrets.map_or_else(|| "FILE".to_owned(), |file| file.display().to_string());
    let cutover = format!(
        "minio-migrate cutover {same} --writer-access-key {writers} --writer-secrets {secrets} --accept-loss {}",
        losses.join(",")
    );
    let rows = [
        (
            "until then",
            "what is written meanwhile is carried; from a timer",
            format!("minio-migrate {same}"),
        ),
        (
            "GO or NO-GO",
            "KEY: each login that writes to the old store; FILE: a line for each, access key and secret key",
            cutover.clone(),
        ),
        (
            "after GO",
            "the old store stays frozen",
            format!("point the writers at {targets}"),
        ),
        (
            "then",
            "so that moving back would lose nothing; from a timer",
            format!("minio-migrate reverse {same}"),
        ),
        (
            "at the end",
            "when nobody would move back any more",
            format!("switch {} off", source.name),
        ),
    ];
    let rows = rows.map(|(when, why, what)| vec![when.to_owned(), why.to_owned(), what]);
    let table = Table {
        title: "The way from here".to_owned(),
        columns: ["when", "what for", "what"].map(str::to_owned).to_vec(),
        rows: rows.to_vec(),
    };
    Some((cutover, table))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::baseline::Bucket;
    use crate::cli::{Parsed, parse};

    fn told(more: &[&str], etags: u64) -> Option<(String, Table)> {
        let all = [
            "minio-migrate",
            "--source-endpoint=http://old:9000",
            "--target-endpoint=http://a:9000,http://b:9000",
        ];
        let Parsed::Run(args) = parse(all.iter().chain(more).map(OsString::from)) else {
            panic!("{more:?}")
        };
        let bucket = |name: &str| Bucket {
            name: name.to_owned(),
            on_target: true,
            loses_versions: false,
        };
        let baseline = Baseline {
            buckets: vec![bucket("x"), bucket("y")],
            differences: Vec::new(),
            conditions: Vec::new(),
        };
        let seen = Seen {
            etags,
            ..Seen::default()
        };
        steps(&args, &baseline, &seen)
    }

    #[test]
    fn the_steps_are_commands_that_this_program_takes() {
        let (next, table) = told(&["--journal=/j.sqlite"], 3).unwrap();
        for (word, what) in [("cutover", next), ("reverse", table.rows[3][2].clone())] {
            let words = what.split(' ').map(OsString::from);
            let parsed = parse(words);
            let Parsed::Run(args) = parsed else {
                panic!("{word}: {what}: {parsed:?}")
            };
            assert_eq!(
                (args.buckets.as_slice(), args.targets.len()),
                (&["x".to_owned(), "y".to_owned()][..], 2)
            );
            assert_eq!(args.copying.journal.as_deref(), Some("/j.sqlite".as_ref()));
        }
        assert!(told(&["--bucket=x"], 0).is_some());
        assert!(
            told(&["--prefix=songs/"], 0).is_none(),
            "a cutover is of buckets"
        );
    }
}
