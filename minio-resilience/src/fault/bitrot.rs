//! Bytes of shards that are flipped on one drive, in a lab alone, and in objects of this run alone. A shard is a file
//! `BUCKET/KEY/DATA-DIR/part.1`: blocks, each after its hash of 32 bytes (cmd/bitrot-streaming.go). A byte of a block
//! is flipped, never one of a hash. Deleting the objects takes the damage away, too, so nothing else has to undo it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use veza_probe::incus::Incus;
use veza_probe::instance::InstanceName;

/// The longest that reading or changing the shards may take.
const LIMIT: Duration = Duration::from_secs(60);

/// The bytes of a hash before each block: HighwayHash256S.
const HASH_BYTES: u64 = 32;

/// A folder of a drive: all shards of this run on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shelf {
    /// The instance of the drive's node.
    pub instance: InstanceName,
    /// Where the drive is mounted.
    pub path: String,
    /// The bucket.
    pub bucket: String,
    /// What the keys of this run begin with; it ends with a slash.
    pub prefix: String,
}

/// A shard file, as it stands on a drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// The key of its object.
    pub key: String,
    /// The folder of the version that it belongs to.
    pub data_dir: String,
    /// Its number.
    pub part: String,
    /// Its size, in bytes.
    pub size_bytes: u64,
    /// The SHA-256 of it, in hexadecimal.
    pub sha256: String,
}

impl Shelf {
    fn folder(&self) -> String {
        format!(
            "{}/{}/{}",
            self.path,
            self.bucket,
            self.prefix.trim_end_matches('/')
        )
    }

    /// Every shard file of this run on the drive.
    ///
    /// # Errors
    /// What stood in the way.
    pub async fn shards(&self, incus: &Incus) -> Result<Vec<Shard>, String> {
        let folder = self.folder();
        let said = self.run(incus, LIST, &[&folder]).await?;
        let shards = said.lines().map(|line| shard(line, &self.prefix));
        let shards: Option<Vec<Shard>> = shards.collect();
        shards.ok_or_else(|| format!("the files below {folder} are not such as MinIO keeps them"))
    }

    /// Flips one byte in the middle of each of these shards.
    ///
    /// # Errors
    /// What stood in the way; some may be flipped then.
    pub async fn flip(&self, incus: &Incus, shards: &[&Shard]) -> Result<(), String> {
        let folder = self.folder();
        for shard in shards {
            let key = shard.key.strip_prefix(&self.prefix).unwrap_or(&shard.key);
            let file = format!("{folder}/{key}/{}/{}", shard.data_dir, shard.part);
            let offset = middle(shard.size_bytes).to_string();
            self.run(incus, FLIP, &[&file, &offset]).await?;
        }
        Ok(())
    }

    async fn run(&self, incus: &Incus, script: &str, arguments: &[&str]) -> Result<String, String> {
        let mut argv = vec!["bash", "-c", script, "bitrot"];
        argv.extend_from_slice(arguments);
        let instance = &self.instance;
        let done = incus.exec(instance, &argv, LIMIT).await;
        let done = done.map_err(|error| format!("shards of {instance}: {error}"))?;
        match done.code {
            0 => Ok(done.stdout),
            code => {
                let said = done.stderr.trim();
                Err(format!(
                    "shards of {instance}: the command ended with code {code}: {said}"
                ))
            }
        }
    }
}

/// `SHA256 SIZE PATH`, the path below the folder.
const LIST: &str = r#"
set -euo pipefail
cd "$1"
find . -type f -name 'part.*' | sort | while IFS= read -r file; do
    sum=$(sha256sum < "$file")
    printf '%s %s %s\n' "${sum%% *}" "$(stat --format=%s "$file")" "${file#./}"
done
"#;

/// The complement of a byte, written over it; and read again, as a drive that does not take it would prove nothing.
const FLIP: &str = r#"
set -euo pipefail
file=$1 offset=$2
byte=$(od --address-radix=n --format=u1 --skip-bytes="$offset" --read-bytes=1 "$file" | tr -d ' ')
other=$((255 - byte))
printf "\\x$(printf %02x "$other")" | dd of="$file" bs=1 seek="$offset" conv=notrunc,fsync status=none
now=$(od --address-radix=n --format=u1 --skip-bytes="$offset" --read-bytes=1 "$file" | tr -d ' ')
test "$now" = "$other" || { echo "$file: byte $offset is $now after $other was written" >&2; exit 3; }
"#;

/// The offset of a byte in the middle of the first 16 KiB, which are of the first block.
fn middle(size_bytes: u64) -> u64 {
    HASH_BYTES + size_bytes.saturating_sub(HASH_BYTES).min(1 << 14) / 2
}

fn shard(line: &str, prefix: &str) -> Option<Shard> {
    let (sha256, rest) = line.split_once(' ')?;
    let (size, path) = rest.split_once(' ')?;
    let (rest, part) = path.rsplit_once('/')?;
    let (key, data_dir) = rest.rsplit_once('/')?;
    Some(Shard {
        key: format!("{prefix}{key}"),
        data_dir: data_dir.to_owned(),
        part: part.to_owned(),
        size_bytes: size.parse().ok()?,
        sha256: sha256.to_owned(),
    })
}

/// Which shards are flipped: one of each of `count` objects, spread over all that have exactly one version with one
/// part here, so that the object's name says which version it was.
///
/// # Errors
/// How many there are, when these are fewer.
pub fn chosen(shards: &[Shard], count: usize) -> Result<Vec<&Shard>, String> {
    let mut of_key: BTreeMap<&str, Vec<&Shard>> = BTreeMap::new();
    for shard in shards {
        of_key.entry(&shard.key).or_default().push(shard);
    }
    let single = of_key.values().filter_map(|all| match all.as_slice() {
        [one] if one.part == "part.1" && one.size_bytes > HASH_BYTES => Some(*one),
        _ => None,
    });
    let single: Vec<&Shard> = single.collect();
    if count == 0 || single.len() < count {
        return Err(format!(
            "{} objects of this run have exactly one shard file of their own on the drive, and {count} are to be \
             flipped: ask for 1 to {}, or for more objects",
            single.len(),
            single.len()
        ));
    }
    let step = single.len() / count;
    Ok(single
        .into_iter()
        .step_by(step.max(1))
        .take(count)
        .collect())
}

/// The keys of all shards whose bytes differ, or that are on one side only.
pub fn changed(before: &[Shard], after: &[Shard]) -> BTreeSet<String> {
    let name = |s: &Shard| (s.key.clone(), s.data_dir.clone(), s.part.clone());
    let sums = |all: &[Shard]| -> BTreeMap<_, _> {
        let all = all.iter().map(|s| (name(s), s.sha256.clone()));
        all.collect()
    };
    let (before, after) = (sums(before), sums(after));
    let names = before.keys().chain(after.keys());
    let differ = names.filter(|name| before.get(name) != after.get(name));
    differ.map(|(key, _, _)| key.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = "aa 131104 a/b/d1/part.1\nbb 40 c/d2/part.1\ncc 40 c/d3/part.1\ndd 32 e/d4/part.1\nee 99 f/d5/part.1\nff 99 f/d5/part.2\n11 64 g/d6/part.1";

    fn listed() -> Vec<Shard> {
        LISTED
            .lines()
            .map(|line| shard(line, "p/").unwrap())
            .collect()
    }

    #[test]
    fn a_file_of_a_drive_is_a_shard_of_an_object() {
        let first = &listed()[0];
        assert_eq!(
            (first.key.as_str(), first.data_dir.as_str()),
            ("p/a/b", "d1")
        );
        assert_eq!((first.part.as_str(), first.size_bytes), ("part.1", 131_104));
        assert_eq!(shard("aa 1 part.1", "p/"), None);
        assert_eq!(shard("aa x a/d/part.1", "p/"), None);
    }

    #[test]
    fn only_objects_with_one_shard_are_chosen() {
        let all = listed();
        let keys = |count| -> Vec<String> {
            chosen(&all, count)
                .unwrap()
                .iter()
                .map(|s| s.key.clone())
                .collect()
        };
        assert_eq!(keys(2), ["p/a/b", "p/g"]);
        assert_eq!(keys(1), ["p/a/b"]);
        assert!(chosen(&all, 3).unwrap_err().contains("2 objects"));
        assert!(chosen(&all, 0).is_err());
    }

    #[test]
    fn a_byte_of_a_block_is_flipped_never_one_of_its_hash() {
        assert_eq!(middle(33), 32);
        assert_eq!(middle(64), 48);
        assert_eq!(middle(10 << 20), 32 + (1 << 13));
    }

    #[test]
    fn what_changed_is_named_by_its_key() {
        let before = listed();
        assert!(changed(&before, &before).is_empty());
        let mut after = before.clone();
        after[1].sha256 = "00".to_owned();
        after.remove(0);
        let keys: Vec<String> = changed(&before, &after).into_iter().collect();
        assert_eq!(keys, ["p/a/b", "p/c"]);
    }
}
