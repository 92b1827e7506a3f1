//! minio-migrate: compares two S3 stores, object by object and version by version, by the bytes of both.

mod cli;
mod targets;
mod baseline;
mod transfer;
mod observation;
mod verdict;
mod report;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use veza_probe::clock::{Clock, Stop};
use veza_probe::environment;
use veza_probe::report::keep::Keep;
use veza_probe::report::{Figure, Report, Untouched, keep};
use veza_probe::story::Story;
use veza_probe::undo::{self, State};
use veza_probe::verdict::{Judgement, Verdict};

use baseline::Baseline;
use cli::{Args, CHECK, Endpoint, Parsed, Word};
use observation::Watch;
use observation::compare::Noted;
use targets::Targets;
use transfer::flow::{Flow, Rules, Stopped};
use transfer::journal::{About, Journal};
use transfer::object::Carrier;
use transfer::pace::{Memory, Rates};
use verdict::Promises;
use verdict::status::Kept;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let entered = environment::enter(&args, &cli::variables(), |name| std::env::var_os(name));
    if let Err(error) = entered {
        return told_usage(&Clock::start(), &cli::usage(error.to_string()));
    }
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(check(args)),
        Err(error) => {
            let reason = format!("starting the runtime failed: {error}");
            let judgement =
                Judgement::new(Verdict::MissingTool, "no-runtime", reason, "run it again");
            told_usage(&Clock::start(), &judgement)
        }
    }
}

async fn check(args: Vec<OsString>) -> ExitCode {
    let clock = Clock::start();
    let args = match cli::parse(args) {
        Parsed::Run(args) => args,
        Parsed::Tell(text) => {
            tell(&mut std::io::stdout(), &text);
            return ExitCode::SUCCESS;
        }
        Parsed::Look(paths) => match keep::look_at(&paths) {
            Ok(text) => {
                tell(&mut std::io::stdout(), &text);
                return ExitCode::SUCCESS;
            }
            Err(words) => return told_usage(&clock, &cli::usage(words)),
        },
        Parsed::Usage(judgement) => return told_usage(&clock, &judgement),
    };
    let story = Story::new(args.output.quiet);
    let keep = Keep::new(CHECK, &args.output);
    let kept = keep.look_at_metrics();
    let kept = kept.and_then(|()| keep.open(&clock, &story, &report::unfinished(&clock)));
    let (report, kept) = match (Stop::listen(), kept) {
        (Ok(stop), Ok(kept)) => (attended(clock, &args, &story, stop).await, kept),
        (Err(error), kept) => {
            let reason = format!("installing signal handlers failed: {error}");
            let why = Judgement::new(
                Verdict::MissingTool,
                "no-signal-handlers",
                reason,
                "run it again",
            );
            (
                report::untouched(&clock, &args, why.into()),
                kept.ok().flatten(),
            )
        }
        (Ok(_), Err(why)) => (report::untouched(&clock, &args, why), None),
    };
    story.say(&format!("{}: {}", report.verdict, report.reason));
    keep.save(kept.as_ref(), &report, &story);
    keep.save_metrics(&report, &story);
    story.end();
    tell(
        &mut std::io::stdout(),
        &keep::printed(&args.output, &report),
    );
    ExitCode::from(report.exit_code)
}

fn told_usage(clock: &Clock, judgement: &Judgement) -> ExitCode {
    let report = report::of(clock, judgement);
    tell(&mut std::io::stderr(), &veza_probe::report::text(&report));
    ExitCode::from(report.exit_code)
}

/// A reader that went away is no reason to lose the exit code.
fn tell(to: &mut impl Write, text: &str) {
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}

/// A run, and what becomes of it when a panic ends it.
async fn attended(clock: Clock, args: &Args, story: &Story, stop: Stop) -> Report {
    let ended = undo::guarded(run(clock, args, story, stop)).await;
    ended.unwrap_or_else(|words| {
        let reason = format!("a bug of this tool ended the run: {words}");
        let next = "report it with the story above";
        let judgement = Judgement::new(Verdict::Internal, "bug", reason, next);
        report::untouched(&clock, args, judgement.into())
    })
}

async fn run(clock: Clock, args: &Args, story: &Story, mut stop: Stop) -> Report {
    if args.word == Some(Word::Status) {
        return status(&clock, args);
    }
    let found = tokio::select! {
        found = look(args) => found,
        signal = stop.wait() => {
            let judgement = Judgement::new(Verdict::Interrupted(signal), "interrupted", "nothing was touched", "run it again");
            Err(judgement.into())
        }
    };
    let found = match found {
        Ok(found) => found,
        Err(why) => return report::untouched(&clock, args, why),
    };
    let run = Run {
        clock,
        args,
        story,
        targets: &found.0,
        baseline: &found.1,
    };
    match args.word {
        Some(Word::Verify) => run.verify(&mut stop).await,
        Some(Word::Copy) => run.copy(&mut stop).await,
        Some(Word::Status) | None => run.whole(&mut stop).await,
    }
}

/// What journals say, without asking a store.
fn status(clock: &Clock, args: &Args) -> Report {
    let all = journals(args).and_then(|files| {
        let looked = files.iter().map(|file| {
            let journal = Journal::look(file)?;
            let [source, target, versions, shard] = journal.about()?;
            Ok(Kept {
                file: file.display().to_string(),
                of: [source, target, versions],
                shard,
                sums: journal.sums()?,
            })
        });
        looked.collect::<Result<Vec<_>, String>>()
    });
    match all {
        Ok(all) => report::status::assemble(clock, &all),
        Err(words) => {
            let next = "look at --journals and --journal";
            report::untouched(
                clock,
                args,
                targets::refused("journal-unusable", words, next),
            )
        }
    }
}

/// The journals that were named: a file, those in a folder, or those in the state folder.
fn journals(args: &Args) -> Result<Vec<PathBuf>, String> {
    let copying = &args.copying;
    let state = State::new(|name| std::env::var_os(name))
        .folder()
        .join("migrations");
    let folder = match (&copying.journal, &copying.journals) {
        (Some(file), None) => return Ok(vec![file.clone()]),
        (_, Some(folder)) => folder,
        (None, None) => &state,
    };
    let told = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(told)? {
        let path = entry.map_err(told)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "sqlite")
        {
            all.push(path);
        }
    }
    all.sort();
    Ok(all)
}

async fn look(args: &Args) -> Result<(Targets, Baseline), Untouched> {
    let targets = targets::resolve(args)?;
    let baseline = baseline::measure(args, &targets).await?;
    Ok((targets, baseline))
}

/// A run that has found both stores.
struct Run<'a> {
    clock: Clock,
    args: &'a Args,
    story: &'a Story,
    targets: &'a Targets,
    baseline: &'a Baseline,
}

impl Run<'_> {
    /// Copies, then compares everything.
    async fn whole(&self, stop: &mut Stop) -> Report {
        let copied = self.copy(stop).await;
        if copied.exit_code != 0 {
            return copied;
        }
        self.story.say(&copied.reason);
        let mut report = self.verify(stop).await;
        report
            .figures
            .extend(copied.figures.into_iter().map(|figure| Figure {
                id: format!("copy-{}", figure.id),
                ..figure
            }));
        report.notes.extend(copied.notes);
        report
    }

    async fn copy(&self, stop: &mut Stop) -> Report {
        let (args, clock) = (self.args, self.clock);
        let opened = self.journal();
        let (journal, flow) = match opened {
            Ok(journal) => (journal.clone(), self.flow(journal)),
            Err(words) => {
                let next = "name a file that can be written with --journal";
                let refused = targets::refused("journal-unusable", words, next);
                return report::untouched(&clock, args, refused);
            }
        };
        let copying = async {
            for bucket in &self.baseline.buckets {
                self.story.say(&format!("copying {}", bucket.name));
                flow.bucket(&bucket.name, self.story).await?;
            }
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
            is_empty: sums.versions + sums.marks == 0,
        };
        let judgement = verdict::copying::judge(&copy);
        let seen = (self.baseline, &counts, &journal);
        report::copying::assemble(&clock, args, &judgement, seen)
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
            target: name(args.targets.first()),
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
                clock: self.clock,
            },
            rates: Arc::new(Rates::new(copying.limit_rate, bandwidth)),
            rules: Arc::new(Rules {
                versions: args.versions,
                prefix: args.prefix.clone(),
                shard: (copying.shard.0, copying.shard.1),
                most: args.at_once(64),
                overwrite: copying.overwrite,
            }),
            counts: Arc::default(),
        }
    }

    async fn verify(&self, stop: &mut Stop) -> Report {
        let (args, clock) = (self.args, self.clock);
        let journal = match self.known() {
            Ok(journal) => journal,
            Err(words) => {
                let next = "name the journal of this copy with --journal";
                let refused = targets::refused("journal-unusable", words, next);
                return report::untouched(&clock, args, refused);
            }
        };
        let book = match Watch::book(args) {
            Ok(book) => book,
            Err(words) => return report::untouched(&clock, args, cli::usage(words).into()),
        };
        let watch = Watch {
            clock,
            args,
            targets: self.targets,
            baseline: self.baseline,
            story: self.story,
            book: book.clone(),
            noted: journal.clone().map(|journal| Noted {
                journal,
                clock,
                is_delta: false,
            }),
        };
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
        report::assemble(&clock, args, &judgement, (self.baseline, &seen, gates))
    }
}
