//! What is typed about copying: where it is written down, how much may be under way.

use std::path::PathBuf;
use std::str::FromStr;

/// What a copy may do.
#[derive(Clone, Debug, clap::Args)]
pub struct Copying {
    /// The journal: a SQLite file that says of each version what was copied, when and through which node, and what was read again.
    /// A copy goes on with it. Without this, one for these two stores in the state folder (VEZA_STATE_DIR).
    #[arg(long, env = "MINIO_MIGRATE_JOURNAL", value_name = "FILE")]
    pub journal: Option<PathBuf>,

    /// With status: a folder whose journals (*.sqlite) are looked at together, those of the shards of one migration.
    #[arg(long, env = "MINIO_MIGRATE_JOURNALS", value_name = "FOLDER")]
    pub journals: Option<PathBuf>,

    /// How much of objects may be held in memory at the same time: bytes, or with KiB, MiB, GiB behind.
    #[arg(
        long,
        env = "MINIO_MIGRATE_MEMORY",
        value_name = "SIZE",
        default_value = "256MiB"
    )]
    pub memory: Size,

    /// How many bytes may be copied in a second, at most.
    #[arg(long, env = "MINIO_MIGRATE_LIMIT_BANDWIDTH", value_name = "SIZE")]
    pub limit_bandwidth: Option<Size>,

    /// How many versions may be copied in a second, at most.
    #[arg(long, env = "MINIO_MIGRATE_LIMIT_RATE", value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit_rate: Option<u64>,

    /// Only the keys of this share of N, by a hash of bucket and key: N runs with a journal each copy everything once.
    #[arg(
        long,
        env = "MINIO_MIGRATE_SHARD",
        value_name = "I/N",
        default_value = "1/1"
    )]
    pub shard: Shard,

    /// Makes buckets that the target has not, with versions and object lock as on the source, and sets encryption, tags, policy and CORS
    /// before, and default retention, lifecycle, notification and suspended versioning after the copy. What the target does not take is
    /// listed.
    #[arg(long, env = "MINIO_MIGRATE_BUCKET_CONFIG")]
    pub bucket_config: bool,

    /// Removes from the target what was copied by this journal and is not on the source any more: when everything was listed and copied without
    /// trouble, and a second complete listing of the source agrees. What others wrote there is never removed.
    #[arg(long, env = "MINIO_MIGRATE_DELETE_EXTRANEOUS")]
    pub delete_extraneous: bool,

    /// How many versions of a bucket may be removed so; more, and none is.
    #[arg(
        long,
        env = "MINIO_MIGRATE_MAX_DELETE",
        value_name = "NUMBER",
        default_value = "1000"
    )]
    pub max_delete: u64,

    /// Also copies objects that have another ETag on the target for the same bytes: of a source whose ETags are not made of the bytes.
    /// Without this they are left and named, as another ETag is all that shows bytes that were changed on their way from the source.
    #[arg(long, env = "MINIO_MIGRATE_OTHER_ETAGS")]
    pub other_etags: bool,

    /// Copies on top of what others wrote to the target under the same keys. Without this such keys are left alone and named.
    #[arg(long, env = "MINIO_MIGRATE_OVERWRITE")]
    pub overwrite: bool,
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let end = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let factor: Option<u64> = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => Some(1),
            "k" | "kib" => Some(1 << 10),
            "m" | "mib" => Some(1 << 20),
            "g" | "gib" => Some(1 << 30),
            _ => None,
        };
        let bytes = number.parse::<u64>().ok().zip(factor);
        let bytes = bytes.and_then(|(number, factor)| number.checked_mul(factor));
        let bytes = bytes.filter(|bytes| *bytes > 0);
        bytes
            .map(Size)
            .ok_or_else(|| "expected a number of bytes, like 64MiB".to_owned())
    }
}

/// A share of the keys: which, from 1, of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard(pub u32, pub u32);

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Shard, String> {
        let split = text.split_once('/');
        let read = split.and_then(|(one, all)| Some(Shard(one.parse().ok()?, all.parse().ok()?)));
        let read = read.filter(|Shard(one, all)| (1..=*all).contains(one) && *all <= 10_000);
        read.ok_or_else(|| "expected I/N with I from 1 to N, like 2/4".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("1", 1),
            ("64KiB", 65_536),
            ("256MiB", 256 << 20),
            ("2 GiB", 2 << 30),
            ("1m", 1 << 20),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in [
            "",
            "0",
            "MiB",
            "1.5GiB",
            "1TB",
            "-1",
            "99999999999999999999",
        ] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_shard_is_one_of_them() {
        assert_eq!("2/4".parse(), Ok(Shard(2, 4)));
        for text in ["0/4", "5/4", "1", "1/0", "a/b", "1/10001"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
