//! What each word does, from the first question to the report.

mod cutover;
mod reverse;

pub use cutover::recover;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use veza_probe::clock::{Clock, Stop};
use veza_probe::report::{Figure, Report, Untouched};
use veza_probe::story::Story;
use veza_probe::undo::State;

use crate::baseline::{self, Baseline, preflight};
use crate::cli::{self, Args, Endpoint, Versions};
use crate::observation::Watch;
use crate::observation::compare::Noted;
use crate::observation::findings::{Book, Seen};
use crate::observation::planning::Room;
use crate::report;
use crate::targets::{self, Targets};
use crate::transfer::buckets;
use crate::transfer::extraneous::Left;
use crate::transfer::flow::{Counts, Flow, Rules, Stopped};
use crate::transfer::freeze;
use crate::transfer::journal::rows::Sums;
use crate::transfer::journal::{About, Journal};
use crate::transfer::object::Carrier;
use crate::transfer::pace::{Memory, Rates};
use crate::verdict::{self, Promises};

/// A run that has found both stores.
pub struct Run<'a> {
    /// The run's clock.
    pub clock: Clock,
    /// What was typed.
    pub args: &'a Args,
    /// Where the story is told.
    pub story: &'a Story,
    /// Both stores.
    pub targets: &'a Targets,
    /// What there was before.
    pub baseline: &'a Baseline,
}

impl Run<'_> {
    /// Lists both stores, and says what is to be done.
    pub async fn plan(&self, stop: &mut Stop) -> Report {
        let book = Book::new(None);
        let watch = self.watch(&book, None, false);
        let mut planned = Vec::new();
        let listing = async {
            for bucket in &self.baseline.buckets {
                self.story.doing(&format!("listing {}", bucket.name));
                let listed = watch.planned(&bucket.name, bucket.on_target).await;
                planned.push(listed.map_err(|failure| format!("{}: {failure}", bucket.name))?);
            }
            Ok::<_, String>(())
        };
        let (ended, signal) = tokio::select! {
            ended = listing => (ended, None),
            signal = stop.wait() => (Ok(()), Some(signal)),
        };
        let room = match targets::admins(self.args, &self.clock) {
            Ok((_, target)) => target.info().await.ok(),
            Err(_) => None,
        };
        let room = room.and_then(|cluster| Room::of(&cluster, &planned));
        let seen = (self.baseline, planned.as_slice(), room);
        report::planning::assemble(&self.clock, self.args, seen, ended, signal)
    }

    /// Copies, then compares everything.
    pub async fn whole(&self, stop: &mut Stop) -> Report {
        let copied = self.copy(stop).await;
        if copied.exit_code != 0 {
            return copied;
        }
        self.story.say(&copied.reason);
        // Buckets may have been made and set since.
        let looked = baseline::measure(self.args, self.targets).await;
        let baseline = match looked {
            Ok(baseline) => baseline,
            Err(untouched) => return report::untouched(&self.clock, self.args, untouched),
        };
        let run = Run {
            baseline: &baseline,
            ..*self
        };
        let (mut report, seen) = run.compare_all(stop).await;
        let steps = seen.filter(|_| report.exit_code == 0);
        if let Some((next, steps)) =
            steps.and_then(|seen| report::rollout::steps(self.args, &baseline, &seen))
        {
            report.next = next;
            report.tables.push(steps);
        }
        report
            .figures
            .extend(copied.figures.into_iter().map(|figure| Figure {
                id: format!("copy-{}", figure.id),
                ..figure
            }));
        report.notes.extend(copied.notes);
        report
    }

    /// Copies what the target has not.
    pub async fn copy(&self, stop: &mut Stop) -> Report {
        let (args, clock) = (self.args, self.clock);
        if let Err(untouched) = self.may_copy().await {
            return report::untouched(&clock, args, untouched);
        }
        let opened = self.journal();
        let (journal, flow) = match opened {
            Ok(journal) => {
                let expected = Arc::new(self.expected().await);
                let flow = self.flow(journal.clone());
                (journal, Flow { expected, ..flow })
            }
            Err(words) => {
                let next = "name a file that can be written with --journal";
                let refused = targets::refused("journal-unusable", words, next);
                return report::untouched(&clock, args, refused);
            }
        };
        let mut todo = buckets::ToDo::new();
        let copying = async {
            for bucket in &self.baseline.buckets {
                self.story.say(&format!("copying {}", bucket.name));
                if args.copying.bucket_config {
                    let prepared = buckets::prepare(self.targets, bucket).await;
                    todo.extend(prepared.map_err(|failure| {
                        Stopped::Bucket(format!("{}: {failure}", bucket.name))
                    })?);
                }
                flow.bucket(&bucket.name, self.story).await?;
                if args.copying.bucket_config {
                    todo.extend(buckets::finish(self.targets, bucket).await);
                    todo.extend(self.same_quota(&bucket.name).await.err());
                }
            }
            self.remove_gone(&flow).await?;
            Ok::<_, Stopped>(())
        };
        let (stopped, signal) = tokio::select! {
            done = copying => (done.err(), None),
            signal = stop.wait() => (None, Some(signal)),
        };
        let closed = journal.close().map_err(Stopped::Journal);
        let stopped = stopped.or(closed.err());
        let counts = flow.counts().clone();
        let sums = journal.sums().unwrap_or_default();
        let copy = verdict::copying::Copy {
            counts: &counts,
            stopped: stopped.as_ref(),
            signal,
            is_empty: self.is_nothing(&sums, &counts),
        };
        let judgement = verdict::copying::judge(&copy);
        let seen = (self.baseline, &counts, &journal);
        let mut report = report::copying::assemble(&clock, args, &judgement, seen);
        report.notes.extend(todo);
        report
    }

    /// Whether there was nothing to copy; what other parts had copied is nothing of this one.
    fn is_nothing(&self, sums: &Sums, counts: &Counts) -> bool {
        sums.versions + sums.marks == 0 || (self.args.part().is_some() && counts.keys == 0)
    }

    /// Gives the target's bucket the quota of the source's: after the copy, which it might stop.
    async fn same_quota(&self, bucket: &str) -> Result<(), String> {
        let Ok((source, target)) = targets::admins(self.args, &self.clock) else {
            return Ok(());
        };
        let words = |error| {
            format!("{bucket}: the quota could not be set on the target, set it by hand: {error}")
        };
        // A source that is no MinIO has none.
        let Ok(quota) = source.quota(bucket).await else {
            return Ok(());
        };
        match quota.bytes() {
            None => Ok(()),
            Some(_) => target.set_quota(bucket, &quota).await.map_err(words),
        }
    }

    /// Removes from the target what went from the source, where that was asked for, and everything else is as it should be.
    async fn remove_gone(&self, flow: &Flow) -> Result<(), Stopped> {
        let copying = &self.args.copying;
        let is_clean = flow.counts().troubles == 0;
        if !copying.delete_extraneous || !is_clean {
            return Ok(());
        }
        for bucket in &self.baseline.buckets {
            let removed = flow
                .remove_gone(&bucket.name, copying.max_delete, self.story)
                .await;
            let removed = removed.map_err(|left| match left {
                Left::Journal(words) => Stopped::Journal(words),
                Left::TooMany(most) => Stopped::Extraneous(format!(
                    "{}: more than {most} versions went from the source (--max-delete): none of them was removed from the target",
                    bucket.name
                )),
                Left::Disagree(key) => Stopped::Extraneous(format!(
                    "{key} was not listed by the source, and then was: nothing was removed from the target"
                )),
                Left::Failed(words) => Stopped::Extraneous(format!("removing what went from the source: {words}")),
            })?;
            flow.counts().removed += removed;
        }
        Ok(())
    }

    /// Refuses what would lose versions, or write to the target what came from there, or what a login may not do.
    async fn may_copy(&self) -> Result<(), Untouched> {
        let is_kept = self.args.versions == Versions::All && !self.args.copying.bucket_config;
        let loses = self
            .baseline
            .buckets
            .iter()
            .find(|bucket| bucket.loses_versions);
        if let Some(bucket) = loses.filter(|_| is_kept) {
            let name = &bucket.name;
            let words = format!(
                "{name} keeps versions on the source, and none on the target: each would overwrite the one before"
            );
            let next = "--bucket-config sets it; or --versions latest";
            return Err(targets::refused("versions-would-be-lost", words, next));
        }
        let source = self.place().1.source;
        let left = freeze::left(&cutover::freezes(), &source);
        let left = left
            .map_err(|words| targets::refused("freeze-unreadable", words, "look at that file"))?;
        match left.iter().find(|(_, record)| record.go_at().is_some()) {
            Some((_, record)) => {
                let words = format!(
                    "{}; GO was given: what is written to the target since may have come back to the source",
                    record.told()
                );
                Err(targets::refused(
                    "go-given",
                    words,
                    "minio-migrate reverse; cutover --recover says what it is about",
                ))
            }
            None => preflight::permitted(self.args, self.targets, &self.baseline.buckets).await,
        }
    }

    fn journal(&self) -> Result<Journal, String> {
        let (path, about) = self.place();
        if let Some(folder) = path.parent() {
            let made = std::fs::create_dir_all(folder);
            made.map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        Journal::open(&path, &about)
    }

    /// The journal, if there is one: what somebody else copied has none.
    fn known(&self) -> Result<Option<Journal>, String> {
        let (path, about) = self.place();
        let is_there = path.exists();
        if !is_there && self.args.copying.journal.is_some() {
            return Err(format!("journal {}: there is none", path.display()));
        }
        is_there.then(|| Journal::open(&path, &about)).transpose()
    }

    fn place(&self) -> (PathBuf, About) {
        let (args, shard) = (self.args, self.args.copying.shard);
        let name = |endpoint: Option<&Endpoint>| {
            endpoint.map_or_else(String::new, |endpoint| endpoint.name.clone())
        };
        let about = About {
            source: name(args.source.as_ref()),
            // In whatever order they were typed.
            target: name(
                args.targets
                    .iter()
                    .min_by(|one, other| one.name.cmp(&other.name)),
            ),
            versions: args.versions,
            shard: (shard.0, shard.1),
        };
        let path = args.copying.journal.clone().unwrap_or_else(|| {
            let state = State::new(|name| std::env::var_os(name));
            state.folder().join("migrations").join(about.file_name())
        });
        (path, about)
    }

    fn flow(&self, journal: Journal) -> Flow {
        let (args, copying) = (self.args, &self.args.copying);
        let bandwidth = copying.limit_bandwidth.map(|size| size.0);
        Flow {
            clock: self.clock,
            journal,
            carrier: Carrier {
                source: self.targets.source.clone(),
                target: self.targets.target.clone(),
                memory: Memory::new(copying.memory.0),
                other_etags: copying.other_etags,
                clock: self.clock,
            },
            rates: Arc::new(Rates::new(copying.limit_rate, bandwidth)),
            rules: Arc::new(Rules {
                versions: args.versions,
                prefix: args.prefix.clone(),
                choosing: args.choosing.clone(),
                shard: (copying.shard.0, copying.shard.1),
                most: args.at_once(64),
                listings: args.listings(),
                overwrite: copying.overwrite,
            }),
            counts: Arc::default(),
            expected: Arc::default(),
        }
    }

    /// About how many keys each bucket of the source has, where it counts them and all of them are copied.
    async fn expected(&self) -> BTreeMap<String, u64> {
        let source = match targets::admins(self.args, &self.clock) {
            Ok((source, _)) if self.args.part().is_none() => source,
            _ => return BTreeMap::new(),
        };
        let usage = source.usage().await.unwrap_or_default();
        let keys = usage
            .into_iter()
            .map(|(bucket, usage)| (bucket, usage.keys));
        keys.collect()
    }

    /// Compares everything.
    pub async fn verify(&self, stop: &mut Stop) -> Report {
        self.compare_all(stop).await.0
    }

    /// The same, with what was seen; none where nothing was compared.
    async fn compare_all(&self, stop: &mut Stop) -> (Report, Option<Seen>) {
        let (args, clock) = (self.args, self.clock);
        let journal = match self.known() {
            Ok(journal) => journal,
            Err(words) => {
                let next = "name the journal of this copy with --journal";
                let refused = targets::refused("journal-unusable", words, next);
                return (report::untouched(&clock, args, refused), None);
            }
        };
        let book = match Watch::book(args) {
            Ok(book) => book,
            Err(words) => {
                let refused = cli::usage(words).into();
                return (report::untouched(&clock, args, refused), None);
            }
        };
        let watch = self.watch(&book, journal.as_ref(), false);
        let stopped = tokio::select! {
            () = watch.compare() => None,
            signal = stop.wait() => Some(signal),
        };
        if let Some(Err(words)) = journal.map(|journal| journal.close()) {
            book.count(|seen| seen.broken.push(words));
        }
        let seen = book.close();
        let promises = Promises {
            more_allowed: args.allow_unexpected,
            buckets_ignored: args.ignore_buckets,
            depth: args.verify,
        };
        let gates = verdict::gates(&seen, &promises);
        let judgement = verdict::judge(&seen, &gates, &promises, stopped);
        let report = report::assemble(&clock, args, &judgement, (self.baseline, &seen, gates));
        (report, Some(seen))
    }

    fn watch(&self, book: &Book, journal: Option<&Journal>, is_delta: bool) -> Watch<'_> {
        Watch {
            clock: self.clock,
            args: self.args,
            targets: self.targets,
            baseline: self.baseline,
            story: self.story,
            book: book.clone(),
            noted: journal.map(|journal| Noted {
                journal: journal.clone(),
                clock: self.clock,
                is_delta,
            }),
        }
    }

    /// Compares everything; what was read again before is only listed, where that is enough.
    async fn compared(&self, journal: Option<&Journal>, is_delta: bool) -> Seen {
        let book = Book::new(None);
        self.watch(&book, journal, is_delta).compare().await;
        if let Some(Err(words)) = journal.map(Journal::save) {
            book.count(|seen| seen.broken.push(words));
        }
        book.close()
    }
}
