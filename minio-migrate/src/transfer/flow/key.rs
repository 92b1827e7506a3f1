//! One key: what is to be done for it, done.

use super::todo::{self, Conflict, Todo};
use super::{Counts, Flow};
use crate::targets::s3::{Failure, S3};
use crate::targets::walk::{Version, Walk};
use crate::transfer::journal::Copied;
use crate::transfer::journal::rows::Row;
use crate::transfer::object::{Carried, Place, Trouble};

/// How often a key is listed anew that changes while it is carried.
const LISTED: usize = 4;

/// What is known of a key, and what is to be done for it.
pub struct Work {
    /// What is to be done.
    pub todo: Todo,
    /// What the journal knows.
    pub rows: Vec<Row>,
    /// What the target has, where that was listed.
    pub standing: Option<Vec<Version>>,
    /// Whether a run that was killed, or this one, may have written some of it without writing that down.
    pub may_be_ours: bool,
}

/// A key to be carried.
pub struct Job {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// What there is to do.
    pub work: Work,
}

/// What came of a key.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The key.
    pub key: String,
    /// Bytes that were written.
    pub bytes: u64,
    /// Why it is not on the target as it is on the source.
    pub trouble: Option<String>,
    /// Whether that is since others write there.
    pub is_conflict: bool,
    /// Why nothing can be written down any more.
    pub journal: Option<String>,
    /// What would stop other keys, too.
    pub wall: Option<Wall>,
}

/// What stops more than one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wall {
    /// There is no room on the target.
    Full,
    /// A login may not do something.
    Denied,
}

impl Wall {
    fn of(failure: &Failure) -> Option<Wall> {
        match failure {
            failure if failure.is_full() => Some(Wall::Full),
            failure if failure.is_denied() => Some(Wall::Denied),
            _ => None,
        }
    }
}

/// Why a key was not done.
enum Amiss {
    Changed(String),
    Conflict(Conflict),
    Failed(String, Option<Wall>),
    Journal(String),
}

impl Job {
    /// Carries the key. What is another one than was listed is listed again.
    pub async fn run(self, flow: &Flow) -> Outcome {
        let Job { bucket, key, work } = self;
        let mut outcome = Outcome {
            key: key.clone(),
            ..Outcome::default()
        };
        let mut work = Ok(work);
        let mut changed = String::new();
        for _ in 0..LISTED {
            let done = match work {
                Ok(work) => carry(flow, (&bucket, &key), work, &mut outcome.bytes).await,
                Err(amiss) => Err(amiss),
            };
            match done {
                Ok(()) => return outcome,
                Err(Amiss::Changed(words)) => changed = words,
                Err(amiss) => return outcome.amiss(amiss),
            }
            work = listed(flow, &bucket, &key).await;
        }
        outcome.trouble = Some(format!("it changed each time that it was read: {changed}"));
        outcome
    }

    /// Lists a key anew, and carries it.
    pub async fn again(flow: &Flow, bucket: String, key: String) -> Outcome {
        match listed(flow, &bucket, &key).await {
            Ok(work) => Job { bucket, key, work }.run(flow).await,
            Err(amiss) => {
                let outcome = Outcome {
                    key,
                    ..Outcome::default()
                };
                outcome.amiss(amiss)
            }
        }
    }
}

impl Outcome {
    fn amiss(mut self, amiss: Amiss) -> Outcome {
        match amiss {
            Amiss::Changed(words) => self.trouble = Some(words),
            Amiss::Failed(words, wall) => (self.trouble, self.wall) = (Some(words), wall),
            Amiss::Conflict(conflict) => {
                self.trouble = Some(conflict.words());
                self.is_conflict = true;
            }
            Amiss::Journal(words) => self.journal = Some(words),
        }
        self
    }
}

/// What both stores and the journal have of a key now.
async fn listed(flow: &Flow, bucket: &str, key: &str) -> Result<Work, Amiss> {
    let history = history(flow, &flow.carrier.source, bucket, key).await;
    let history = history.map_err(|failure| unlisted("source", &failure))?;
    let rows = flow.journal.of_key(bucket, key).map_err(Amiss::Journal)?;
    let todo = todo::of(&history, &rows).map_err(Amiss::Conflict)?;
    let gone = flow.journal.gone((bucket, key), &todo.gone, flow.now_ms());
    gone.map_err(Amiss::Journal)?;
    flow.count(|counts| counts.gone += todo.gone.len() as u64);
    Ok(Work {
        todo,
        rows,
        standing: None,
        may_be_ours: true,
    })
}

fn unlisted(side: &str, failure: &Failure) -> Amiss {
    let words = format!("listing it on the {side}: {failure}");
    Amiss::Failed(words, Wall::of(failure))
}

/// What a store has of a key. The key itself is the first of all that begin so.
async fn history(
    flow: &Flow,
    store: &S3,
    bucket: &str,
    key: &str,
) -> Result<Vec<Version>, Failure> {
    let first = Walk::new(store, bucket, key, flow.rules.versions)
        .next()
        .await?;
    let first = first.filter(|entry| entry.key == key);
    Ok(first.map(|entry| entry.history).unwrap_or_default())
}

async fn carry(
    flow: &Flow,
    (bucket, key): (&str, &str),
    work: Work,
    bytes: &mut u64,
) -> Result<(), Amiss> {
    let Work {
        todo,
        rows,
        standing,
        may_be_ours,
    } = work;
    if todo.add.is_empty() {
        return Ok(());
    }
    let standing = match standing {
        Some(standing) => standing,
        None => {
            let asked = history(flow, &flow.carrier.target, bucket, key).await;
            asked.map_err(|failure| unlisted("target", &failure))?
        }
    };
    let allowed = (may_be_ours, flow.rules.overwrite);
    let todo = todo::with_target(todo, &rows, &standing, allowed);
    let todo = todo.map_err(Amiss::Conflict)?;
    let mut written = todo.written.iter();
    let mut before = standing.first().and_then(|version| version.id.clone());
    for (number, version) in &todo.add {
        let found = written.next();
        let carried = match found {
            Some(found) => found_there(found),
            None => {
                let place = Place {
                    bucket,
                    key,
                    before: before.as_deref(),
                };
                Box::pin(one(flow, place, version)).await?
            }
        };
        before.clone_from(&carried.target_id);
        let row = row_of(*number, version, &carried, found.is_some(), flow.now_ms());
        let copied = Copied {
            place: (bucket, key),
            row: &row,
        };
        flow.journal.copied(&copied).map_err(Amiss::Journal)?;
        *bytes += carried.size_bytes;
        flow.count(|counts| match (found.is_some(), version.is_mark) {
            (true, _) => counts.found += 1,
            (false, true) => counts.marks += 1,
            (false, false) => {
                counts.versions += 1;
                counts.bytes += carried.size_bytes;
            }
        });
    }
    Ok(())
}

async fn one(flow: &Flow, place: Place<'_>, version: &Version) -> Result<Carried, Amiss> {
    flow.rates.object(&flow.clock).await;
    flow.rates.bytes(&flow.clock, version.size_bytes).await;
    let carried = if version.is_mark {
        flow.carrier.mark(place, version).await
    } else {
        flow.carrier.version(place, version).await
    };
    carried.map_err(|trouble| match trouble {
        Trouble::Changed(words) => Amiss::Changed(words),
        Trouble::Failed(failure) => Amiss::Failed(failure.to_string(), Wall::of(&failure)),
    })
}

fn found_there(version: &Version) -> Carried {
    Carried {
        sha256: [0; 32],
        size_bytes: version.size_bytes,
        target_id: version.id.clone(),
        target_etag: version.etag.clone(),
        node: String::new(),
        losses: Vec::new(),
    }
}

fn row_of(number: u32, version: &Version, carried: &Carried, is_found: bool, now_ms: i64) -> Row {
    Row {
        number,
        source_id: version.id.clone().unwrap_or_default(),
        is_mark: version.is_mark,
        size_bytes: version.size_bytes,
        etag: version.etag.clone(),
        modified_ms: version.modified_ms,
        sha256: (!is_found && !version.is_mark).then_some(carried.sha256),
        target_id: carried.target_id.clone(),
        target_etag: carried.target_etag.clone(),
        node: (!is_found).then(|| carried.node.clone()),
        copied_ms: now_ms,
        losses: (!carried.losses.is_empty()).then(|| carried.losses.join("; ")),
        ..Row::default()
    }
}

impl Flow {
    fn count(&self, count: impl FnOnce(&mut Counts)) {
        count(&mut self.counts());
    }
}
