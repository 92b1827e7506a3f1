//! A cutover: everything that can be done before is done before; then the writers are frozen, the rest is copied and compared, and
//! it is GO, or they may write again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use veza_probe::clock::{self, At, Clock, Signal, Stop};
use veza_probe::minio::Admin;
use veza_probe::report::{Report, Untouched};
use veza_probe::story::Story;
use veza_probe::undo::{self, State};
use veza_probe::verdict::{Judgement, Verdict};

use super::Run;
use crate::cli::Args;
use crate::observation::findings::{Finding, Kind, Seen};
use crate::observation::fitness::{self, Fitness};
use crate::observation::uploads::{self, Open, Uploads};
use crate::report::cutover::Told;
use crate::report::{self};
use crate::targets::s3::answered;
use crate::targets::{self, refused};
use crate::transfer::flow::{Counts, Flow, Stopped};
use crate::transfer::freeze::{self, Canary, Freeze, Recovered, Writer};
use crate::transfer::journal::Journal;
use crate::verdict;
use crate::verdict::cutover::{Evidence, Frozen, UnderWay};

/// Up to so many keys of the last copy are looked at one by one on the target's drives; more, and all of them are.
const ONE_BY_ONE: usize = 200;

/// How often it is asked what the source still serves.
const SERVED_EVERY: Duration = Duration::from_millis(100);

/// What a cutover works with.
struct Cut<'a> {
    run: &'a Run<'a>,
    journal: Journal,
    flow: Flow,
    source: Admin,
    target: Admin,
    writers: Vec<Writer>,
    canary: Canary,
    folder: PathBuf,
    name: String,
    evidence: Evidence,
    told: Told,
}

/// Why it ends before its end.
enum Ended {
    /// It is NO-GO, and the evidence says why.
    NoGo,
    /// Something else, in a judgement.
    With(Judgement),
}

impl Run<'_> {
    /// GO, or NO-GO.
    pub async fn cutover(&self, stop: &mut Stop) -> Report {
        let mut cut = match self.cut().await {
            Ok(cut) => cut,
            Err(untouched) => return report::untouched(&self.clock, self.args, untouched),
        };
        let before = tokio::select! {
            before = cut.before() => before,
            signal = stop.wait() => Err(Ended::With(interrupted(signal))),
        };
        let ended = match before {
            Ok(()) => cut.frozen(stop).await,
            Err(ended) => Err(ended),
        };
        let closed = cut.journal.close();
        let gates = verdict::cutover::gates(&cut.evidence);
        let judgement = match ended {
            Ok(()) | Err(Ended::NoGo) => verdict::cutover::judge(&cut.evidence, &gates),
            Err(Ended::With(judgement)) => judgement,
        };
        cut.told.freeze.extend(closed.err());
        let seen = (self.baseline, &cut.evidence, gates, cut.told);
        report::cutover::assemble(&self.clock, self.args, &judgement, seen)
    }

    async fn cut(&self) -> Result<Cut<'_>, Untouched> {
        let (args, clock) = (self.args, self.clock);
        let folder = freezes();
        let place = args.source.as_ref().map_or("", |source| &source.name);
        let left = freeze::left(&folder, place);
        let left =
            left.map_err(|words| refused("freeze-unreadable", words, "look at that file"))?;
        if let Some((_, record)) = left.first() {
            let (reason_id, next) = match record.go_at() {
                Some(_) => (
                    "go-given",
                    "minio-migrate cutover --recover says what it is about",
                ),
                None => ("freeze-left", "minio-migrate cutover --recover"),
            };
            return Err(refused(reason_id, record.told(), next));
        }
        self.may_copy().await?;
        let (source, target) = targets::admins(args, &clock)?;
        let writers = targets::writers(args)?.into_iter();
        let writers = writers
            .map(|(access, store)| Writer { access, store })
            .collect();
        let journal = self.journal().map_err(|words| {
            refused(
                "journal-unusable",
                words,
                "name a file that can be written with --journal",
            )
        })?;
        let name = undo::run_id(&clock);
        let canary = Canary {
            bucket: self.without_lock().await?,
            key: format!("{}veza-canary-{name}", args.prefix),
        };
        let max_s = args.cutting.max_freeze.as_secs_f64();
        Ok(Cut {
            run: self,
            flow: self.flow(journal.clone()),
            journal,
            source,
            target,
            writers,
            canary,
            folder,
            name,
            evidence: Evidence {
                left: None,
                seen: None,
                unverified: None,
                frozen: Frozen::NotAsked,
                under_way: UnderWay::NotAsked,
                uploads: None,
                fitness: None,
                freeze_s: (None, max_s),
                losses: BTreeMap::new(),
                accepted: args.cutting.accepted.clone(),
                unfrozen_accepted: args.cutting.accept_unfrozen,
                ignored: (args.ignore_buckets, args.allow_unexpected),
            },
            told: Told::default(),
        })
    }

    /// A bucket from which what a writer wrote there can be removed again.
    async fn without_lock(&self) -> Result<String, Untouched> {
        for bucket in &self.baseline.buckets {
            let asked = self.targets.source.ask(|client| {
                answered(
                    client
                        .get_object_lock_configuration()
                        .bucket(&bucket.name)
                        .send(),
                )
            });
            if asked.await.is_err() {
                return Ok(bucket.name.clone());
            }
        }
        let words = "every bucket locks its objects, so that what a writer wrote as a test could not be removed";
        Err(refused(
            "no-canary",
            words,
            "name a bucket without object lock with --bucket, too",
        ))
    }
}

/// Where freezes are on record.
pub fn freezes() -> PathBuf {
    State::new(|name| std::env::var_os(name))
        .folder()
        .join("freezes")
}

fn interrupted(signal: Signal) -> Judgement {
    let reason = format!("ended by {signal}; nobody is frozen");
    Judgement::new(
        Verdict::Interrupted(signal),
        "interrupted",
        reason,
        "run it again",
    )
}

impl Cut<'_> {
    /// Everything that can be done while writers write: copy, read again, rehearse, look at the target.
    async fn before(&mut self) -> Result<(), Ended> {
        let story = self.run.story;
        story.say("before the freeze: copying");
        self.copy().await?;
        self.told.copied.0 = self.written();
        story.say("before the freeze: reading again what was not read again yet");
        let seen = self.compare().await;
        let amiss = self.amiss(&seen);
        if !amiss.is_empty() {
            self.evidence.seen = Some(seen);
            return Err(before_freeze(&amiss));
        }
        story.say("before the freeze: looking at every object on the target's drives");
        let places = self.places();
        let fitness = fitness::healed(&self.target, &places, self.run.story).await;
        let mut unfit = fitness.words();
        unfit.extend(self.untold().await);
        self.evidence.fitness = Some(fitness);
        if !unfit.is_empty() {
            self.evidence.seen = Some(seen);
            return Err(before_freeze(&unfit));
        }
        story.say("before the freeze: the same once more, to see how long it takes");
        let began = self.run.clock.at();
        self.copy().await?;
        self.told.copied.0 = self.written();
        self.compare().await;
        let predicted_s = self.run.clock.at().us_since(began) as f64 / 1e6;
        self.told.predicted_s = Some(predicted_s);
        let max_s = self.evidence.freeze_s.1;
        if predicted_s > max_s {
            let reason = format!(
                "NO-GO: the freeze would take {predicted_s:.1} s, and may take {max_s} s; nobody was frozen"
            );
            let next = "allow more with --max-freeze, or cut over bucket by bucket";
            return Err(Ended::With(Judgement::new(
                Verdict::Fail,
                "freeze-too-long",
                reason,
                next,
            )));
        }
        story.say(&format!(
            "the freeze is expected to take {predicted_s:.1} s"
        ));
        Ok(())
    }

    /// Why nobody could tell in the freeze whether the source still serves writes.
    async fn untold(&self) -> Option<String> {
        if self.writers.is_empty() || self.run.args.cutting.accept_unfrozen {
            return None;
        }
        let asked = self.source.writes_under_way().await;
        let words = |error| {
            format!(
                "whether the source still serves writes can't be told: {error}; --accept-unfrozen does without"
            )
        };
        asked.err().map(words)
    }

    /// What would be NO-GO whatever the freeze shows.
    fn amiss(&mut self, seen: &Seen) -> Vec<String> {
        let is_firm = |finding: &&Finding| {
            let has_version = finding.version.as_deref().is_some_and(|id| id != "null");
            has_version && [Kind::Different, Kind::Unread].contains(&finding.kind)
        };
        // What writers change meanwhile is found again in the freeze; a version is never another one.
        let firm = seen.named.iter().filter(is_firm);
        let firm = firm.map(|found| format!("{}/{}: {}", found.bucket, found.key, found.words));
        let mut amiss: Vec<String> = seen.broken.iter().cloned().chain(firm).collect();
        if let Some(left @ 1..) = self.evidence.left {
            let first = self.journal.troubles(3).unwrap_or_default().into_iter();
            let first = first.map(|(bucket, key, words)| format!("{bucket}/{key}: {words}"));
            let first = first.collect::<Vec<_>>().join("; ");
            amiss.push(format!("{left} keys could not be copied: {first}"));
        }
        self.count();
        let losses = self.evidence.refused_losses().join(", ");
        if !losses.is_empty() {
            amiss.push(format!(
                "would be lost, and is not accepted by name (--accept-loss): {losses}"
            ));
        }
        amiss
    }

    /// Freezes, and comes to an end, whatever happens: GO, or a thaw.
    async fn frozen(&mut self, stop: &mut Stop) -> Result<(), Ended> {
        if self.writers.is_empty() {
            return self.last(self.run.clock.at()).await;
        }
        let source = self.run.targets.source.clone();
        if let Err(words) = freeze::could_write(&self.writers, &source, &self.canary).await {
            self.evidence.frozen = Frozen::No(words);
            return Err(Ended::NoGo);
        }
        let clock = self.run.clock;
        let began = clock.at();
        let place = self
            .run
            .args
            .source
            .as_ref()
            .map_or("", |source| &source.name);
        let set = Freeze::set(
            &self.source,
            &clock,
            (&self.folder, &self.name, place),
            &self.writers,
        );
        let (mut freeze, disabled) = match set.await {
            Ok(set) => set,
            Err(words) => {
                self.evidence.frozen = Frozen::No(words);
                return Err(Ended::NoGo);
            }
        };
        let names = self.run.args.cutting.writers.join(", ");
        self.run.story.say(&format!("frozen: {names}"));
        let max = self.run.args.cutting.max_freeze;
        let within = async {
            if let Err(words) = disabled {
                self.evidence.frozen = Frozen::No(words);
                return Err(Ended::NoGo);
            }
            self.proven_and_last(&freeze, began).await
        };
        let ended = tokio::select! {
            ended = undo::guarded(clock::within(max, within)) => match ended {
                Ok(Ok(ended)) => ended,
                Ok(Err(_)) => {
                    self.evidence.freeze_s.0 = Some(clock.at().us_since(began) as f64 / 1e6);
                    Err(Ended::NoGo)
                }
                Err(words) => Err(Ended::With(Judgement::new(Verdict::Internal, "bug", words, "report it with the story above"))),
            },
            signal = stop.wait() => Err(Ended::With(interrupted(signal))),
        };
        let gates = verdict::cutover::gates(&self.evidence);
        let is_go = ended.is_ok()
            && verdict::cutover::judge(&self.evidence, &gates).verdict == Verdict::Pass;
        if is_go {
            match freeze.go(&clock) {
                Ok(()) => {
                    self.told.freeze.push(format!(
                        "{names} stay frozen at the source; minio-migrate never thaws after GO"
                    ));
                    return Ok(());
                }
                Err(words) => self.evidence.frozen = Frozen::No(words),
            }
        }
        self.thawed(freeze, ended).await
    }

    async fn thawed(&mut self, freeze: Freeze, ended: Result<(), Ended>) -> Result<(), Ended> {
        match freeze.thaw().await {
            Ok(words) => {
                self.run.story.say(&format!("thawed: {words}"));
                self.told.freeze.push(format!(
                    "thawed: {words}; what was seen in the freeze is no evidence any more"
                ));
                ended.and(Err(Ended::NoGo))
            }
            Err(words) => {
                let reason = format!("writers may still be frozen: {words}");
                let next = "minio-migrate cutover --recover";
                Err(Ended::With(Judgement::new(
                    Verdict::NotUndone,
                    "freeze-left",
                    reason,
                    next,
                )))
            }
        }
    }

    async fn proven_and_last(&mut self, freeze: &Freeze, began: At) -> Result<(), Ended> {
        let source = &self.run.targets.source;
        let proven = freeze
            .proven(&self.run.clock, &self.writers, source, &self.canary)
            .await;
        self.evidence.frozen = match proven {
            Ok(()) => Frozen::Proven(self.writers.len()),
            Err(words) => Frozen::No(words),
        };
        if matches!(self.evidence.frozen, Frozen::No(_)) {
            return Err(Ended::NoGo);
        }
        self.run
            .story
            .say("each writer is refused with its own login");
        self.served().await;
        self.run.story.say("copying the rest");
        self.last(began).await
    }

    /// Waits until the source has served every write that was let in before its writer was frozen.
    async fn served(&mut self) {
        let mut told = String::new();
        loop {
            let under_way = match self.source.writes_under_way().await {
                Ok(under_way) => under_way,
                // Asked before the freeze, too: there it was NO-GO, or accepted.
                Err(error) => {
                    self.evidence.under_way = UnderWay::Unknown(error.to_string());
                    return;
                }
            };
            self.evidence.under_way = UnderWay::of(&under_way);
            let UnderWay::Seen(_, words) = &self.evidence.under_way else {
                return;
            };
            if *words != told {
                told.clone_from(words);
                self.run.story.say(&format!(
                    "waiting for writes that were let in before the freeze: {words}"
                ));
            }
            clock::sleep(SERVED_EVERY).await;
        }
    }

    /// The last copy and the last comparison.
    async fn last(&mut self, began: At) -> Result<(), Ended> {
        let (clock, before) = (self.run.clock, self.written());
        let since_ms = self.flow.now_ms();
        let open = self.uploads().await;
        self.copy().await?;
        self.told.copied.1 = self.written() - before;
        let seen = self.compare().await;
        self.evidence.seen = Some(seen);
        self.evidence.uploads = match (open, self.uploads().await) {
            (Some(before), Some(after)) => Some(Uploads::between(&before, &after)),
            _ => None,
        };
        let delta = self.delta(since_ms);
        let places = if delta.len() > ONE_BY_ONE {
            self.places()
        } else {
            delta
        };
        let last = fitness::healed(&self.target, &places, self.run.story).await;
        self.evidence.fitness = Some(match self.evidence.fitness.take() {
            Some(before) => both(&before, last),
            None => last,
        });
        self.count();
        self.evidence.freeze_s.0 = Some(clock.at().us_since(began) as f64 / 1e6);
        Ok(())
    }

    async fn copy(&mut self) -> Result<(), Ended> {
        let before = self.flow.counts().troubles;
        for bucket in &self.run.baseline.buckets {
            let copied = self.flow.bucket(&bucket.name, self.run.story).await;
            if let Err(stopped) = copied {
                return Err(Ended::With(self.incomplete(&stopped)));
            }
        }
        self.evidence.left = Some(self.flow.counts().troubles - before);
        let removed = self.run.remove_gone(&self.flow).await;
        removed.map_err(|stopped| Ended::With(self.incomplete(&stopped)))
    }

    fn incomplete(&self, stopped: &Stopped) -> Judgement {
        let counts: Counts = self.flow.counts().clone();
        verdict::copying::judge(&verdict::copying::Copy {
            counts: &counts,
            stopped: Some(stopped),
            signal: None,
            is_empty: false,
        })
    }

    async fn compare(&self) -> Seen {
        self.run.compared(Some(&self.journal), true).await
    }

    fn written(&self) -> u64 {
        let counts = self.flow.counts();
        counts.versions + counts.marks
    }

    /// Bucket and prefix of everything.
    fn places(&self) -> Vec<(String, String)> {
        let prefix = &self.run.args.prefix;
        let buckets = self.run.baseline.buckets.iter();
        buckets
            .map(|bucket| (bucket.name.clone(), prefix.clone()))
            .collect()
    }

    /// Bucket and key of what was copied since.
    fn delta(&self, since_ms: i64) -> Vec<(String, String)> {
        let mut places = Vec::new();
        // What can't be read is looked at as a whole.
        let read = self.journal.each(|bucket, key, row| {
            if row.copied_ms >= since_ms && !row.is_mark {
                places.push((bucket.to_owned(), key.to_owned()));
            }
        });
        if read.is_err() {
            return self.places();
        }
        places.dedup();
        places
    }

    /// Uploads in parts that are open on the source; none where that can't be told.
    async fn uploads(&self) -> Option<Open> {
        let buckets = self.run.baseline.buckets.iter();
        let buckets: Vec<&str> = buckets.map(|bucket| bucket.name.as_str()).collect();
        uploads::open(&self.run.targets.source, &buckets).await.ok()
    }

    /// Counts what was never read again, and what is lost.
    fn count(&mut self) {
        let (mut versions, mut ids, mut unverified) = (0, 0, 0);
        let mut losses = BTreeMap::<String, u64>::new();
        let read = self.journal.each(|_, _, row| {
            if row.gone_ms.is_some() {
                return;
            }
            let has_id = !row.source_id.is_empty() && row.source_id != "null";
            versions += 1;
            ids += u64::from(has_id && row.target_id.as_deref() != Some(&row.source_id));
            unverified += u64::from(!row.is_mark && row.verified_ms.is_none());
            for loss in row.losses.iter().flat_map(|losses| losses.split("; ")) {
                let name = loss.split(':').next().unwrap_or(loss);
                *losses.entry(name.to_owned()).or_default() += 1;
            }
        });
        self.evidence.unverified = read.is_ok().then_some(unverified);
        losses.extend(verdict::cutover::always_lost(versions, ids));
        self.evidence.losses = losses;
    }
}

/// What is seen before the freeze, and is NO-GO.
fn before_freeze(words: &[String]) -> Ended {
    let reason = format!("NO-GO, and nobody was frozen: {}", words.join("; "));
    let next = "see docs/runbooks/minio-migrate.md; the source is in use as before";
    Ended::With(Judgement::new(Verdict::Fail, "no-go", reason, next))
}

/// A look at everything, and a later one at some of it.
fn both(before: &Fitness, last: Fitness) -> Fitness {
    let mut named = before.named.clone();
    named.extend(last.named);
    Fitness {
        looked: before.looked + last.looked,
        lacking: before.lacking + last.lacking,
        named,
        ..last
    }
}

/// Lets writers write again whom a run froze that was killed.
pub async fn recover(clock: &Clock, args: &Args, story: &Story) -> Report {
    let place = args.source.as_ref().map_or("", |source| &source.name);
    let found = targets::admins(args, clock).and_then(|(source, _)| {
        let left = freeze::left(&freezes(), place);
        let left =
            left.map_err(|words| refused("freeze-unreadable", words, "look at that file"))?;
        Ok((source, left))
    });
    let (admin, left) = match found {
        Ok(found) => found,
        Err(untouched) => return report::untouched(clock, args, untouched),
    };
    let mut words = Vec::new();
    let mut frozen = Vec::new();
    for one in &left {
        match freeze::recover(&admin, one).await {
            Recovered::Thawed(told) | Recovered::LeftAlone(told) => words.push(told),
            Recovered::Frozen(told) => frozen.push(told),
        }
        clock::sleep(Duration::ZERO).await;
    }
    for told in words.iter().chain(&frozen) {
        story.say(told);
    }
    let judgement = if !frozen.is_empty() {
        Judgement::new(
            Verdict::NotUndone,
            "freeze-left",
            frozen.join("; "),
            "run it again; by hand: mc admin user enable",
        )
    } else if words.is_empty() {
        Judgement::new(
            Verdict::Clean,
            "nothing-left",
            format!("no cutover from {place} left anybody frozen"),
            "nothing to do",
        )
    } else {
        Judgement::new(
            Verdict::Clean,
            "recovered",
            words.join("; "),
            "nothing to do",
        )
    };
    report::of(clock, &judgement)
}
