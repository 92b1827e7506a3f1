//! minio-migrate: compares two S3 stores, object by object and version by version, by the bytes of both.

mod cli;
mod targets;
mod baseline;
mod transfer;
mod observation;
mod verdict;
mod report;
mod course;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use veza_probe::clock::{Clock, Stop};
use veza_probe::environment;
use veza_probe::report::keep::Keep;
use veza_probe::report::{Report, Untouched, keep};
use veza_probe::story::Story;
use veza_probe::undo::{self, State};
use veza_probe::verdict::{Judgement, Verdict};

use baseline::Baseline;
use cli::{Args, CHECK, Parsed, Word};
use course::Run;
use targets::Targets;
use transfer::journal::Journal;
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
    if args.cutting.recover {
        return course::recover(&clock, args, story).await;
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
    let report = match args.word {
        Some(Word::Verify) => run.verify(&mut stop).await,
        Some(Word::Plan) => run.plan(&mut stop).await,
        Some(Word::Copy) => run.copy(&mut stop).await,
        Some(Word::Cutover) => run.cutover(&mut stop).await,
        Some(Word::Reverse) => run.reverse(&mut stop).await,
        Some(Word::Status) | None => run.whole(&mut stop).await,
    };
    report::in_part(report, args)
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
