//! The working set: objects of every size that matters, each with the hash that it must have, written once and read
//! through every node.

use std::fmt;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::task::JoinSet;
use veza_probe::clock;

use crate::cli::course::Object;
use crate::targets::store::{Failure, Got, Store, hex};

/// Sizes around the limits at which a set of two data drives stores an object in another way: shards of at most
/// 16 KiB stand beside the metadata where versions are kept, those of at most 128 KiB where none are (MinIO,
/// `ShouldInline` in internal/config/storageclass); above, in a file of their own.
const SIZES: [u64; 10] = [
    1,
    1_000,
    10 * KIB,
    32 * KIB - 1,
    32 * KIB,
    32 * KIB + 1,
    64 * KIB,
    256 * KIB - 1,
    256 * KIB,
    256 * KIB + 1,
];
const KIB: u64 = 1024;

/// Every so many objects, one has several blocks of erasure coding (1 MiB each).
const LARGE_EVERY: usize = 25;
const LARGE_BYTES: u64 = 3 * KIB * KIB + 7;

/// Every so many objects, one is uploaded in parts.
const PARTS_EVERY: usize = 50;

/// The size of a part: S3's least.
pub const PART_BYTES: usize = 5 * 1024 * 1024;

/// How many requests are under way at once through one node: a look, and no load test beside the probes.
const AT_ONCE: usize = 4;

/// How often a write that is answered 503 before anything was broken is tried again, and how soon.
const BUSY_TRIES: usize = 20;
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// What an object is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its key below the prefix.
    pub name: String,
    /// Its size.
    pub size_bytes: u64,
}

/// The objects of a set. Those under `read/` are never changed in a run, so readers have them at any time; those under
/// `change/` are there to be overwritten and deleted.
pub fn wanted(count: usize) -> Vec<Wanted> {
    let size = |number: usize| {
        if number % PARTS_EVERY == PARTS_EVERY - 1 {
            PART_BYTES as u64 + 3
        } else if number % LARGE_EVERY == LARGE_EVERY - 1 {
            LARGE_BYTES
        } else {
            let sizes = SIZES.len();
            SIZES.get(number % sizes).copied().unwrap_or(1)
        }
    };
    let all = (0..count).map(|number| {
        let folder = if number % 5 == 4 { "change" } else { "read" };
        Wanted {
            name: format!("{folder}/{number:05}"),
            size_bytes: size(number),
        }
    });
    all.collect()
}

/// The names of those that are uploaded in parts: an upload that was cut short is looked for under each.
pub fn uploads(count: usize) -> Vec<String> {
    let large = |wanted: &Wanted| wanted.size_bytes > PART_BYTES as u64;
    wanted(count)
        .into_iter()
        .filter(large)
        .map(|wanted| wanted.name)
        .collect()
}

/// The bytes of an object: without a pattern, and others for each key and each `edition` of it.
pub fn content(key: &str, edition: u32, size_bytes: u64) -> Vec<u8> {
    let mut seed = Sha256::digest(format!("{key} {edition}").as_bytes());
    let size = usize::try_from(size_bytes).unwrap_or(usize::MAX);
    let mut bytes = Vec::with_capacity(size + 32);
    let mut state = 0_u64;
    while bytes.len() < size {
        if bytes.len() % 4096 == 0 {
            seed = Sha256::digest(seed);
            let first: [u8; 8] = seed.first_chunk().copied().unwrap_or_default();
            state = u64::from_le_bytes(first) | 1;
        }
        // xorshift64: fast, and no two blocks alike.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Writes an object through one node, in parts where it is large enough.
///
/// # Errors
/// [`Failure`].
pub async fn write(
    store: &Store,
    key: &str,
    edition: u32,
    size_bytes: u64,
    limit: Duration,
) -> Result<Object, Failure> {
    let bytes = content(key, edition, size_bytes);
    let sha256 = hex(&Sha256::digest(&bytes));
    let parts = bytes.len().div_ceil(PART_BYTES).max(1);
    let written = match parts {
        1 => store.put(key, bytes, limit).await?,
        _ => store.put_parts(key, &bytes, PART_BYTES, limit).await?,
    };
    Ok(Object {
        key: key.to_owned(),
        size_bytes,
        sha256: Some(sha256),
        etag: written.etag,
        version: written.version,
        parts,
    })
}

/// What reading an object through a node came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// Its bytes are those that were written; or it was deleted, and is not there.
    Right,
    /// Its bytes are not those that were written, and nobody says to have written others.
    Wrong(String),
    /// It is said not to be there (404), which an application takes for deleted.
    Denied(String),
    /// Somebody else wrote it since: another version, or another ETag.
    Changed(String),
    /// It could not be read.
    Failed(String),
}

/// A reading, with its object and node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The object's key.
    pub key: String,
    /// The node that was asked.
    pub node: String,
    /// What it came to.
    pub read: Read,
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Reading { key, node, read } = self;
        match read {
            Read::Right => write!(f, "{key} through {node}: right"),
            Read::Wrong(words)
            | Read::Denied(words)
            | Read::Changed(words)
            | Read::Failed(words) => {
                write!(f, "{key} through {node}: {words}")
            }
        }
    }
}

/// Compares what was read with what was written.
pub fn compare(object: &Object, read: Result<Got, Failure>) -> Read {
    match (read, &object.sha256) {
        (Ok(got), Some(sha256)) if got.sha256 == *sha256 && got.size_bytes == object.size_bytes => {
            Read::Right
        }
        (Ok(got), _) if got.etag != object.etag || got.version != object.version => {
            let told =
                |version: &Option<String>| version.clone().unwrap_or_else(|| "none".to_owned());
            Read::Changed(format!(
                "written by somebody else: ETag {} and version {}, ours were {} and {}",
                got.etag,
                told(&got.version),
                object.etag,
                told(&object.version)
            ))
        }
        (Ok(got), Some(sha256)) => Read::Wrong(format!(
            "{} bytes with SHA-256 {}, written were {} with {sha256}",
            got.size_bytes, got.sha256, object.size_bytes
        )),
        (Ok(_), None) => Read::Wrong("it was deleted, and can be read".to_owned()),
        (Err(failure), None) if failure.is_absent() => Read::Right,
        (Err(failure), Some(_)) if failure.is_absent() => {
            Read::Denied(format!("it is said not to be there: {failure}"))
        }
        (Err(failure), _) => Read::Failed(failure.to_string()),
    }
}

/// A node's name and S3 interface.
pub type Through = (String, Store);

/// Reads every object through every one of these nodes, some at a time.
pub async fn read_all(through: &[Through], objects: &[Object], limit: Duration) -> Vec<Reading> {
    let mut nodes = JoinSet::new();
    for (name, store) in through.iter().cloned() {
        let objects = objects.to_vec();
        nodes.spawn(read_through(name, store, objects, limit));
    }
    let mut all = Vec::new();
    while let Some(done) = nodes.join_next().await {
        all.extend(done.unwrap_or_default());
    }
    all.sort_by(|one, other| (&one.key, &one.node).cmp(&(&other.key, &other.node)));
    all
}

/// Reads again what came to nothing, each object through its node.
pub async fn read_again(
    through: &[Through],
    objects: &[Object],
    unread: &[Reading],
    limit: Duration,
) -> Vec<Reading> {
    let mut all = Vec::new();
    for (name, store) in through {
        let is_it = |object: &&Object| {
            unread
                .iter()
                .any(|read| read.node == *name && read.key == object.key)
        };
        let some: Vec<Object> = objects.iter().filter(is_it).cloned().collect();
        all.extend(read_through(name.clone(), store.clone(), some, limit).await);
    }
    all
}

async fn read_through(
    name: String,
    store: Store,
    objects: Vec<Object>,
    limit: Duration,
) -> Vec<Reading> {
    let mut under_way = JoinSet::new();
    let mut all = Vec::new();
    for object in objects {
        if under_way.len() >= AT_ONCE {
            all.extend(under_way.join_next().await.and_then(Result::ok));
        }
        let (node, store) = (name.clone(), store.clone());
        under_way.spawn(async move {
            let read = compare(&object, store.get(&object.key, limit).await);
            Reading {
                key: object.key,
                node,
                read,
            }
        });
    }
    while let Some(done) = under_way.join_next().await {
        all.extend(done);
    }
    all
}

/// Writes a whole set, each object through the next node.
///
/// # Errors
/// The first write that failed, with the node it went through.
pub async fn write_all(
    through: &[Through],
    prefix: &str,
    count: usize,
    limit: Duration,
) -> Result<Vec<Object>, (String, Failure)> {
    let mut under_way = JoinSet::new();
    let mut all = Vec::new();
    let nodes = through.iter().cycle();
    for (wanted, (name, store)) in wanted(count).into_iter().zip(nodes) {
        if under_way.len() >= AT_ONCE {
            taken(&mut under_way, &mut all).await?;
        }
        let (name, store, key) = (
            name.clone(),
            store.clone(),
            format!("{prefix}{}", wanted.name),
        );
        under_way.spawn(async move {
            let written = write_patiently(&store, &key, wanted.size_bytes, limit).await;
            written.map_err(|failure| (name, failure))
        });
    }
    while !under_way.is_empty() {
        taken(&mut under_way, &mut all).await?;
    }
    all.sort_by(|one, other| one.key.cmp(&other.key));
    Ok(all)
}

/// Writes an object of the set; 503 is tried again. A cluster of which a node came back says that it has write quorum up to
/// 15 s before each node takes writes again (seen, and told from other errors by nothing but time).
async fn write_patiently(
    store: &Store,
    key: &str,
    size_bytes: u64,
    limit: Duration,
) -> Result<Object, Failure> {
    let mut tries = 0;
    loop {
        let written = write(store, key, 0, size_bytes, limit).await;
        let busy = matches!(&written, Err(failure) if failure.code == Some(503));
        if !busy || tries == BUSY_TRIES {
            return written;
        }
        tries += 1;
        clock::sleep(BUSY_PAUSE).await;
    }
}

type Write = Result<Object, (String, Failure)>;

async fn taken(
    under_way: &mut JoinSet<Write>,
    all: &mut Vec<Object>,
) -> Result<(), (String, Failure)> {
    if let Some(Ok(written)) = under_way.join_next().await {
        all.push(written?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object() -> Object {
        Object {
            key: "p/read/1".to_owned(),
            size_bytes: 3,
            sha256: Some("aa".to_owned()),
            etag: "e".to_owned(),
            version: Some("v".to_owned()),
            parts: 1,
        }
    }

    fn got(sha256: &str, etag: &str, version: &str) -> Result<Got, Failure> {
        Ok(Got {
            size_bytes: 3,
            sha256: sha256.to_owned(),
            etag: etag.to_owned(),
            version: Some(version.to_owned()),
        })
    }

    fn failed(code: Option<u16>) -> Result<Got, Failure> {
        Err(Failure {
            code,
            word: None,
            words: "no".to_owned(),
        })
    }

    #[test]
    fn wrong_bytes_are_told_from_those_that_somebody_else_wrote() {
        let object = object();
        assert_eq!(compare(&object, got("aa", "e", "v")), Read::Right);
        assert!(matches!(
            compare(&object, got("bb", "e", "v")),
            Read::Wrong(_)
        ));
        assert!(matches!(
            compare(&object, got("bb", "f", "v")),
            Read::Changed(_)
        ));
        assert!(matches!(
            compare(&object, got("bb", "e", "w")),
            Read::Changed(_)
        ));
        assert!(matches!(
            compare(&object, failed(Some(404))),
            Read::Denied(_)
        ));
        assert!(matches!(
            compare(&object, failed(Some(503))),
            Read::Failed(_)
        ));
        assert!(matches!(compare(&object, failed(None)), Read::Failed(_)));
    }

    #[test]
    fn what_was_deleted_must_not_be_there() {
        let deleted = Object {
            sha256: None,
            ..object()
        };
        assert_eq!(compare(&deleted, failed(Some(404))), Read::Right);
        assert!(matches!(
            compare(&deleted, got("aa", "e", "v")),
            Read::Wrong(_)
        ));
        assert!(matches!(
            compare(&deleted, failed(Some(500))),
            Read::Failed(_)
        ));
    }

    #[test]
    fn a_set_has_every_size_and_bytes_of_its_own() {
        let all = wanted(200);
        let sizes: std::collections::BTreeSet<u64> =
            all.iter().map(|wanted| wanted.size_bytes).collect();
        assert_eq!(sizes.len(), SIZES.len() + 2);
        assert_eq!(uploads(200).len(), 4);
        let one = content("a", 0, 10_000);
        assert_eq!(one.len(), 10_000);
        assert_eq!(one, content("a", 0, 10_000));
        assert_ne!(one, content("b", 0, 10_000));
        assert_ne!(one, content("a", 1, 10_000));
        assert_ne!(one.get(..4096), one.get(4096..8192));
        assert_eq!(content("a", 0, 1).len(), 1);
    }
}
