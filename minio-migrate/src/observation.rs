//! Walks through both stores side by side, and compares what they have.

pub mod findings;
pub mod compare;
pub mod planning;
pub mod fitness;
pub mod uploads;

use std::cell::Cell;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use veza_probe::clock::{At, Clock};
use veza_probe::story::Story;

use crate::baseline::Baseline;
use crate::cli::Args;
use crate::targets::Targets;
use crate::targets::ranges::{self, Range};
use crate::targets::s3::Failure;
use crate::targets::walk::{Entry, Walk};
use crate::transfer::flow::is_mine;
use compare::{Comparer, Noted};
use findings::{Book, Finding, Kind, Seen};

/// How often it is told how far it is.
const TELL_EVERY: Duration = Duration::from_secs(15);

/// Who looks at what.
pub struct Watch<'a> {
    /// The run's clock.
    pub clock: Clock,
    /// What was typed.
    pub args: &'a Args,
    /// Both stores.
    pub targets: &'a Targets,
    /// The buckets.
    pub baseline: &'a Baseline,
    /// Where the story is told.
    pub story: &'a Story,
    /// Where findings go.
    pub book: Book,
    /// The journal of the copy, where there is one.
    pub noted: Option<Noted>,
}

/// A bucket's walks, side by side.
struct Pair {
    source: Walk,
    target: Option<Walk>,
    heads: (Option<Entry>, Option<Entry>),
}

/// What comes next of two walks in one order.
enum Step {
    Source(Entry),
    Target(Entry),
    Both(Entry, Entry),
}

impl Step {
    fn key(&self) -> &str {
        match self {
            Step::Source(entry) | Step::Target(entry) | Step::Both(entry, _) => &entry.key,
        }
    }
}

impl Watch<'_> {
    /// Makes the book, with the file of findings if one was asked for.
    ///
    /// # Errors
    /// A sentence, when the file can't be made.
    pub fn book(args: &Args) -> Result<Book, String> {
        let file = args.findings.as_ref().map(|path| {
            let made = File::create_new(path);
            made.map_err(|error| format!("--findings {}: {error}", path.display()))
        });
        Ok(Book::new(file.transpose()?))
    }

    /// Compares every bucket. What was seen is in the book, also when this is dropped before its end.
    pub async fn compare(&self) {
        for (bucket, words) in &self.baseline.differences {
            self.found(Kind::Bucket, bucket, words);
        }
        for bucket in &self.baseline.buckets {
            self.story.doing(&format!("comparing {}", bucket.name));
            if let Err(failure) = self.bucket(&bucket.name, bucket.on_target).await {
                let words = format!("{}: {failure}", bucket.name);
                self.story.warn(&format!("the listing broke off: {words}"));
                self.book.count(|seen| seen.broken.push(words));
            }
        }
    }

    fn found(&self, kind: Kind, bucket: &str, words: &str) {
        self.book.take(Finding {
            kind,
            bucket: bucket.to_owned(),
            key: String::new(),
            version: None,
            words: words.to_owned(),
        });
    }

    /// Whether a key is one that is looked at.
    fn takes(&self, bucket: &str, key: &str) -> bool {
        let shard = self.args.copying.shard;
        is_mine(bucket, key, (shard.0, shard.1)) && self.args.choosing.takes(key)
    }

    /// The ranges of a bucket that are listed at the same time.
    async fn ranges(&self, bucket: &str) -> Result<Vec<Range>, Failure> {
        let (prefix, listings) = (self.args.prefix.as_str(), self.args.listings());
        if let Some(noted) = &self.noted {
            let ranges = noted.journal.ranges(bucket, (prefix, None), listings);
            return ranges.map_err(Failure::silent);
        }
        let count = listings.of(None) as usize;
        Ok(ranges::by_folder(&self.targets.source, bucket, prefix, count).await)
    }

    /// Both walks through a range.
    fn pair(&self, bucket: &str, on_target: bool, range: &Range) -> Pair {
        let args = self.args;
        let walk = |store| Walk::new(store, bucket, &args.prefix, args.versions).within(range);
        Pair {
            source: walk(&self.targets.source),
            target: on_target.then(|| walk(&self.targets.target)),
            heads: (None, None),
        }
    }

    async fn bucket(&self, bucket: &str, on_target: bool) -> Result<(), Failure> {
        let args = self.args;
        let comparer = Comparer {
            source: self.targets.source.clone(),
            target: self.targets.target.clone(),
            depth: args.verify,
            book: self.book.clone(),
            journal: self.noted.clone(),
        };
        let places = Arc::new(Semaphore::new(args.at_once(16)));
        let told = Cell::new(self.clock.at());
        let ranges = self.ranges(bucket).await?;
        let compared = ranges.iter().map(|range| {
            let pair = self.pair(bucket, on_target, range);
            self.range(bucket, pair, (&comparer, &places, &told))
        });
        join_all(compared).await.into_iter().collect()
    }

    /// Compares the keys of a range. What was begun is ended, also where a listing breaks off.
    async fn range(
        &self,
        bucket: &str,
        mut pair: Pair,
        (comparer, places, told): (&Comparer, &Arc<Semaphore>, &Cell<At>),
    ) -> Result<(), Failure> {
        let mut under_way = JoinSet::new();
        let walked = loop {
            let step = match pair.next().await {
                Ok(Some(step)) => step,
                Ok(None) => break Ok(()),
                Err(failure) => break Err(failure),
            };
            if !self.takes(bucket, step.key()) {
                continue;
            }
            match step {
                Step::Source(entry) => comparer.only(Kind::Missing, bucket, &entry),
                Step::Target(entry) => comparer.only(Kind::Unexpected, bucket, &entry),
                Step::Both(one, other) => {
                    // Never closed.
                    let Ok(place) = Arc::clone(places).acquire_owned().await else {
                        break Ok(());
                    };
                    let (comparer, bucket) = (comparer.clone(), bucket.to_owned());
                    under_way.spawn(async move {
                        comparer.both(&bucket, &one, &other).await;
                        drop(place);
                    });
                }
            }
            while let Some(ended) = under_way.try_join_next() {
                self.ended(bucket, ended);
            }
            self.tell(told, bucket);
        };
        while let Some(ended) = under_way.join_next().await {
            self.ended(bucket, ended);
            self.tell(told, bucket);
        }
        walked
    }

    /// A comparison that panicked has compared nothing.
    fn ended(&self, bucket: &str, ended: Result<(), tokio::task::JoinError>) {
        if let Err(error) = ended {
            let words = format!("{bucket}: comparing a key ended by a bug of this tool: {error}");
            self.book.count(|seen| seen.broken.push(words));
        }
    }

    /// Tells how far it is, now and then.
    fn tell(&self, told: &Cell<At>, bucket: &str) {
        if self.clock.at() < told.get().plus(TELL_EVERY) {
            return;
        }
        let Seen {
            keys,
            bytes,
            counts,
            ..
        } = self.book.so_far();
        let amiss: usize = counts.values().sum();
        let mib = bytes / (1 << 20);
        self.story.say(&format!(
            "comparing {bucket}: {keys} keys, {mib} MiB read on each side, {amiss} amiss"
        ));
        told.set(self.clock.at());
    }
}

impl Pair {
    /// What comes next in the order of keys.
    async fn next(&mut self) -> Result<Option<Step>, Failure> {
        if self.heads.0.is_none() {
            let next = self.source.next().await;
            self.heads.0 = next.map_err(|failure| Failure {
                words: format!("source, {failure}"),
                ..failure
            })?;
        }
        if let (None, Some(walk)) = (&self.heads.1, &mut self.target) {
            let next = walk.next().await;
            self.heads.1 = next.map_err(|failure| Failure {
                words: format!("target, {failure}"),
                ..failure
            })?;
        }
        Ok(match (self.heads.0.take(), self.heads.1.take()) {
            (Some(one), Some(other)) if one.key == other.key => Some(Step::Both(one, other)),
            (Some(one), Some(other)) if one.key < other.key => {
                self.heads.1 = Some(other);
                Some(Step::Source(one))
            }
            (one, Some(other)) => {
                self.heads.0 = one;
                Some(Step::Target(other))
            }
            (Some(one), None) => Some(Step::Source(one)),
            (None, None) => None,
        })
    }
}
