//! Carries a bucket: lists, decides for each key what is to be done, has that done by many at the same time, and writes down how
//! far it is.

pub mod todo;
pub mod lanes;
pub mod tide;
mod tracks;
mod key;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use veza_probe::clock::{self, At, Clock};
use veza_probe::story::Story;

use super::journal::Journal;
use super::journal::rows::Pass;
use super::object::Carrier;
use super::pace::Rates;
use crate::cli::choosing::Choosing;
use crate::cli::{Listings, Versions};
use crate::targets::ranges::Range;
use crate::targets::walk::Walk;
use key::{Job, Outcome, Wall, Work};
use lanes::{Broken, Key, Lanes};
use tide::Tide;
use tracks::Tracks;

/// How long what was copied may be in no file on disk.
const SAVE_EVERY: Duration = Duration::from_millis(250);

/// How often it is told how far it is.
const TELL_EVERY: Duration = Duration::from_secs(15);

/// How long is waited before each further try of keys that could not be carried.
const AGAIN: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(20)];

/// How long what a run sent that was killed may still be under way: after that the target is looked at for it.
const ARRIVES: Duration = Duration::from_secs(3);

/// How many such keys are tried again within a run; the others are in the journal.
const REMEMBERED: usize = 10_000;

/// After so many keys in a row that were refused to a login the others are not tried.
const DENIED: u32 = 20;

/// What was done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Keys that were looked at.
    pub keys: u64,
    /// Keys that were as the journal has them.
    pub unchanged: u64,
    /// Versions that were written.
    pub versions: u64,
    /// Marks of deletion that were written.
    pub marks: u64,
    /// Bytes that were written.
    pub bytes: u64,
    /// Versions that a killed run had written.
    pub found: u64,
    /// Versions that are not on the source any more.
    pub gone: u64,
    /// Versions of these that were removed from the target.
    pub removed: u64,
    /// Keys that could not be carried.
    pub troubles: u64,
    /// Keys of these that were left alone since others wrote them to the target.
    pub conflicts: u64,
    /// The most objects that were under way at the same time.
    pub peak: usize,
}

/// What a run may do.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Which versions are carried.
    pub versions: Versions,
    /// Only keys that begin so.
    pub prefix: String,
    /// Of these, which ones.
    pub choosing: Choosing,
    /// Which shard of how many, from 1.
    pub shard: (u32, u32),
    /// How many objects may be under way at most.
    pub most: usize,
    /// Into how many ranges a bucket of so many versions is divided that are listed at the same time.
    pub listings: Listings,
    /// Whether what others wrote on the target is written over.
    pub overwrite: bool,
}

/// Who carries a bucket.
#[derive(Clone)]
pub struct Flow {
    /// The run's clock.
    pub clock: Clock,
    /// Where it is written down.
    pub journal: Journal,
    /// What carries one version.
    pub carrier: Carrier,
    /// How much in a second.
    pub rates: Arc<Rates>,
    /// What it may do.
    pub rules: Arc<Rules>,
    /// What was done.
    pub counts: Arc<Mutex<Counts>>,
    /// About how many keys each bucket has, where somebody has counted them.
    pub expected: Arc<BTreeMap<String, u64>>,
}

/// Why a bucket was not carried to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// A listing broke off.
    Listing(String),
    /// The journal takes nothing.
    Journal(String),
    /// What is not on the source any more could not be removed from the target.
    Extraneous(String),
    /// The target has no room.
    Full(String),
    /// A login may not do what is needed.
    Denied(String),
    /// The target's bucket could not be made, or set to keep versions.
    Bucket(String),
}

/// A bucket under way.
struct Run<'a> {
    flow: &'a Flow,
    story: &'a Story,
    bucket: &'a str,
    pass: Pass,
    tide: Tide,
    running: JoinSet<Outcome>,
    tracks: Tracks,
    failed: Vec<String>,
    /// Keys in a row that were refused to a login.
    denied: u32,
    /// Up to where a run that was ended may have begun keys.
    begun_before: Option<String>,
    /// When it began, and with how many keys that an earlier run had done.
    since: (At, u64),
    saved: At,
    told: At,
}

impl Flow {
    /// What was done so far.
    pub fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Now, in milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        self.clock.wall(self.clock.at()).as_millisecond()
    }

    /// Carries a bucket. What was done is in the journal, also when this is dropped before its end.
    ///
    /// # Errors
    /// [`Stopped`]. Keys that could not be carried are none: they are counted, and in the journal.
    pub async fn bucket(&self, bucket: &str, story: &Story) -> Result<(), Stopped> {
        let rules = &self.rules;
        let pass = self.journal.pass(bucket, &rules.prefix, self.now_ms());
        let pass = pass.map_err(Stopped::Journal)?;
        if let Some(reached) = &pass.reached {
            story.say(&format!("{bucket}: goes on behind {reached:?}"));
        }
        if pass.frontier > pass.reached {
            clock::sleep(ARRIVES).await;
        }
        let ranges = self.ranges(bucket, &pass).map_err(Stopped::Journal)?;
        let walk = |store| Walk::new(store, bucket, &rules.prefix, rules.versions);
        // Later passes ask the target only about what they are about to write.
        let walks = || {
            let target = pass.is_first.then(|| walk(&self.carrier.target));
            (walk(&self.carrier.source), target)
        };
        let place = (&self.journal, bucket, rules.prefix.as_str());
        let mut lanes = Lanes::new(walks, place, &ranges);
        let now = self.clock.at();
        let begun_before = pass.frontier.clone();
        let since = (now, pass.keys);
        let tracks = Tracks::new(pass.reached.clone(), ranges.len());
        let mut run = Run {
            flow: self,
            story,
            bucket,
            pass,
            tide: Tide::new(rules.most, now),
            running: JoinSet::new(),
            tracks,
            failed: Vec::new(),
            denied: 0,
            begun_before,
            since,
            saved: now,
            told: now,
        };
        let walked = run.walk(&mut lanes).await;
        let drained = run.drain().await;
        walked?;
        drained?;
        run.again().await?;
        run.pass.ended_ms = Some(self.now_ms());
        let ended = self.journal.ended(&run.pass, bucket, &rules.prefix);
        ended.map_err(Stopped::Journal)
    }

    /// The ranges that a pass goes through at the same time. A first pass copies, which takes longer than any listing, and is one that goes on
    /// where it was: it has one.
    fn ranges(&self, bucket: &str, pass: &Pass) -> Result<Vec<Range>, String> {
        if pass.is_first {
            return Ok(Range::between(pass.reached.clone(), Vec::new()));
        }
        let place = (self.rules.prefix.as_str(), pass.reached.as_deref());
        self.journal.ranges(bucket, place, self.rules.listings)
    }
}

impl Run<'_> {
    async fn walk(&mut self, lanes: &mut Lanes) -> Result<(), Stopped> {
        loop {
            let batch = lanes.next().await.map_err(|broken| match broken {
                Broken::Listing(failure) => Stopped::Listing(format!("{}: {failure}", self.bucket)),
                Broken::Journal(words) => Stopped::Journal(words),
            })?;
            let Some((range, keys)) = batch else {
                return Ok(());
            };
            let Some(last) = keys.last() else {
                self.tracks.over(range);
                continue;
            };
            self.frontier(&last.key)?;
            for key in keys {
                self.key(range, key)?;
                self.places().await?;
            }
        }
    }

    /// Waits until another key may be begun.
    async fn places(&mut self) -> Result<(), Stopped> {
        while self.running.len() >= self.tide.limit {
            let Some(ended) = self.running.join_next().await else {
                break;
            };
            self.ended(ended)?;
        }
        while let Some(ended) = self.running.try_join_next() {
            self.ended(ended)?;
        }
        self.tick()
    }

    /// Writes down up to where keys may be begun, before they are.
    fn frontier(&mut self, key: &str) -> Result<(), Stopped> {
        let frontier = self.pass.frontier.as_deref();
        if frontier.is_some_and(|frontier| key <= frontier) {
            return Ok(());
        }
        self.pass.frontier = Some(key.to_owned());
        self.save()
    }

    /// Decides what is to be done for a key, and has it done.
    fn key(&mut self, range: usize, key: Key) -> Result<(), Stopped> {
        let flow = self.flow;
        let rules = &flow.rules;
        if !is_mine(self.bucket, &key.key, rules.shard) || !rules.choosing.takes(&key.key) {
            return Ok(());
        }
        self.pass.keys += 1;
        flow.counts().keys += 1;
        // A key that only the target has is not this migration's: verification names it.
        if key.source.is_none() && key.rows.is_empty() {
            self.tracks.done(range, key.key);
            return Ok(());
        }
        let history = key.source.as_ref().map_or(&[][..], |entry| &entry.history);
        let todo = match todo::of(history, &key.rows) {
            Ok(todo) => todo,
            Err(conflict) => return self.left_alone(range, key.key, &conflict.words()),
        };
        if !todo.gone.is_empty() {
            let place = (self.bucket, key.key.as_str());
            let gone = flow.journal.gone(place, &todo.gone, flow.now_ms());
            gone.map_err(Stopped::Journal)?;
            flow.counts().gone += todo.gone.len() as u64;
        }
        if todo.add.is_empty() {
            flow.counts().unchanged += 1;
            self.tracks.done(range, key.key);
            return Ok(());
        }
        let standing = self
            .pass
            .is_first
            .then(|| key.target.map(|entry| entry.history).unwrap_or_default());
        let may_be_ours = self
            .begun_before
            .as_ref()
            .is_some_and(|last| key.key <= *last);
        self.tracks.begin(range, &key.key);
        let job = Job {
            bucket: self.bucket.to_owned(),
            key: key.key,
            work: Work {
                todo,
                rows: key.rows,
                standing,
                may_be_ours,
            },
        };
        let flow = flow.clone();
        self.running.spawn(async move { job.run(&flow).await });
        Ok(())
    }

    fn left_alone(&mut self, range: usize, key: String, words: &str) -> Result<(), Stopped> {
        let (flow, place) = (self.flow, (self.bucket, key.as_str()));
        let written = flow.journal.trouble(place, Some(words), flow.now_ms());
        written.map_err(Stopped::Journal)?;
        let mut counts = flow.counts();
        counts.troubles += 1;
        counts.conflicts += 1;
        drop(counts);
        self.tracks.done(range, key);
        Ok(())
    }

    fn ended(&mut self, ended: Result<Outcome, JoinError>) -> Result<(), Stopped> {
        let outcome = match ended {
            Ok(outcome) => outcome,
            // A panic of ours: main tells it.
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => return Ok(()),
        };
        self.tide.done(outcome.bytes);
        if let Some(words) = outcome.journal {
            return Err(Stopped::Journal(words));
        }
        let flow = self.flow;
        let place = (self.bucket, outcome.key.as_str());
        let written = flow
            .journal
            .trouble(place, outcome.trouble.as_deref(), flow.now_ms());
        written.map_err(Stopped::Journal)?;
        if outcome.trouble.is_some() {
            let mut counts = flow.counts();
            counts.troubles += 1;
            counts.conflicts += u64::from(outcome.is_conflict);
            drop(counts);
            if !outcome.is_conflict && self.failed.len() < REMEMBERED {
                self.failed.push(outcome.key.clone());
            }
        }
        self.hits(outcome.wall, outcome.trouble.unwrap_or_default())?;
        self.tracks.ended(&outcome.key);
        Ok(())
    }

    /// Ends where what stopped one key would stop all others. Keys up to the one are not reached: they are looked at again.
    fn hits(&mut self, wall: Option<Wall>, words: String) -> Result<(), Stopped> {
        self.denied = match wall {
            Some(Wall::Full) => return Err(Stopped::Full(words)),
            Some(Wall::Denied) => self.denied + 1,
            None => 0,
        };
        match self.denied >= DENIED {
            true => Err(Stopped::Denied(words)),
            false => Ok(()),
        }
    }

    async fn drain(&mut self) -> Result<(), Stopped> {
        while let Some(ended) = self.running.join_next().await {
            self.ended(ended)?;
            self.tick()?;
        }
        self.save()
    }

    /// Tries again what could not be carried: a node may be back.
    async fn again(&mut self) -> Result<(), Stopped> {
        for pause in AGAIN {
            if self.failed.is_empty() {
                return Ok(());
            }
            let failed = std::mem::take(&mut self.failed);
            let (bucket, count) = (self.bucket, failed.len());
            self.story
                .say(&format!("{bucket}: {count} keys are tried again"));
            clock::sleep(pause).await;
            self.flow.counts().troubles -= count as u64;
            for key in failed {
                let flow = self.flow.clone();
                let bucket = self.bucket.to_owned();
                self.running
                    .spawn(async move { Job::again(&flow, bucket, key).await });
                while self.running.len() >= self.tide.limit {
                    let Some(ended) = self.running.join_next().await else {
                        break;
                    };
                    self.ended(ended)?;
                }
                self.tick()?;
            }
            self.drain().await?;
        }
        Ok(())
    }

    fn save(&mut self) -> Result<(), Stopped> {
        self.pass.reached = self.tracks.reached().map(str::to_owned);
        let journal = &self.flow.journal;
        let saved = journal.reached(&self.pass).and_then(|()| journal.save());
        self.saved = self.flow.clock.at();
        saved.map_err(Stopped::Journal)
    }

    fn tick(&mut self) -> Result<(), Stopped> {
        let flow = self.flow;
        let now = flow.clock.at();
        let slowdowns = flow.carrier.source.slowdowns() + flow.carrier.target.slowdowns();
        self.tide.turn(now, slowdowns);
        flow.counts().peak = self.tide.peak;
        if now >= self.told.plus(TELL_EVERY) {
            self.told = now;
            self.tell();
        }
        if now >= self.saved.plus(SAVE_EVERY) {
            return self.save();
        }
        Ok(())
    }

    fn left(&self) -> Option<String> {
        let (_, shards) = self.flow.rules.shard;
        let expected = *self.flow.expected.get(self.bucket)? / u64::from(shards.max(1));
        let (since, before) = self.since;
        let seconds = self.flow.clock.at().us_since(since) as f64 / 1e6;
        told_left(expected, (self.pass.keys, before), seconds)
    }

    fn tell(&self) {
        let counts = self.flow.counts().clone();
        let Counts {
            keys,
            versions,
            bytes,
            troubles,
            ..
        } = counts;
        let seconds = self.flow.clock.at().seconds().max(0.001);
        let mib = bytes as f64 / f64::from(1 << 20);
        let (bucket, at_once) = (self.bucket, self.tide.limit);
        let trouble = match troubles {
            0 => String::new(),
            count => format!(", {count} keys in trouble"),
        };
        let left = self.left().unwrap_or_default();
        self.story.say(&format!(
            "{bucket}: {keys} keys seen, {versions} versions and {mib:.1} MiB copied ({:.0} versions, {:.1} MiB each second), \
             {at_once} at once{trouble}{left}",
            versions as f64 / seconds,
            mib / seconds
        ));
    }
}

/// How far a walk is, and how long the rest takes at the same pace, in words: of about so many keys, after so many of which it began so
/// many seconds ago.
fn told_left(expected: u64, (keys, before): (u64, u64), seconds: f64) -> Option<String> {
    let done = keys.checked_sub(before).filter(|done| *done > 0)?;
    if expected == 0 {
        return None;
    }
    let left = expected.saturating_sub(keys) as f64 * seconds / done as f64;
    let percent = (keys as f64 / expected as f64 * 100.0).min(99.0);
    Some(format!(
        ", {percent:.0} % of about {expected} keys, {} left",
        if left < 90.0 {
            format!("{left:.0} s")
        } else {
            format!("{:.0} min", left / 60.0)
        }
    ))
}

/// Whether a key is one of this shard: by a hash of its own, so that nobody has to agree on anything.
pub fn is_mine(bucket: &str, key: &str, (shard, shards): (u32, u32)) -> bool {
    use sha2::{Digest, Sha256};
    if shards <= 1 {
        return true;
    }
    let hash = Sha256::new()
        .chain_update(bucket)
        .chain_update("/")
        .chain_update(key)
        .finalize();
    let first = hash
        .iter()
        .take(8)
        .fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    first % u64::from(shards) == u64::from(shard.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_it_takes_is_told_by_the_pace_of_this_run() {
        let told = |expected, keys, before, seconds| told_left(expected, (keys, before), seconds);
        let said = Some(", 25 % of about 1000 keys, 30 s left".to_owned());
        assert_eq!(told(1000, 250, 0, 10.0), said);
        // What an earlier run had done was not done in these seconds.
        let said = Some(", 50 % of about 1000 keys, 8 min left".to_owned());
        assert_eq!(told(1000, 500, 400, 100.0), said);
        // There are more than were counted.
        let said = Some(", 99 % of about 1000 keys, 0 s left".to_owned());
        assert_eq!(told(1000, 1200, 0, 10.0), said);
        assert_eq!(told(1000, 400, 400, 10.0), None);
        assert_eq!(told(0, 400, 0, 10.0), None);
    }

    #[test]
    fn every_key_is_in_one_shard() {
        let mut counts = [0; 4];
        for number in 0..4000 {
            let key = format!("tracks/{number}");
            let mine: Vec<u32> = (1..=4)
                .filter(|shard| is_mine("b", &key, (*shard, 4)))
                .collect();
            assert_eq!(mine.len(), 1, "{key}: {mine:?}");
            counts[mine[0] as usize - 1] += 1;
        }
        assert!(
            counts.iter().all(|count| (850..1150).contains(count)),
            "{counts:?}"
        );
        assert!(is_mine("b", "k", (1, 1)));
    }
}
