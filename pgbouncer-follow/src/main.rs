//! pgbouncer-follow: points PgBouncer at the primary of a pg_auto_failover formation as soon as it takes
//! writes, and at no other node.

mod databases;
mod cli;
mod formation;
mod monitor;
mod node;
mod console;
mod supervisor;
mod metrics;
mod follow;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use veza_probe::clock::{Clock, Stop};
use veza_probe::environment;
use veza_probe::story::Story;
use veza_probe::verdict::Verdict;

use cli::{Parsed, Settings};
use follow::{Follower, Round};
use metrics::Metrics;
use supervisor::Supervisor;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let entered = environment::enter(&args, &cli::variables(), |name| std::env::var_os(name));
    if let Err(error) = entered {
        return ended(Verdict::Usage, &error.to_string());
    }
    let settings = match cli::parse(args) {
        Parsed::Run(settings) => settings,
        Parsed::Tell(text) => {
            tell(&text);
            return ExitCode::SUCCESS;
        }
        Parsed::Usage(words) => return ended(Verdict::Usage, &words),
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            return ended(
                Verdict::MissingTool,
                &format!("starting the runtime failed: {error}"),
            );
        }
    };
    let code = runtime.block_on(run(&settings));
    runtime.shutdown_background();
    code
}

async fn run(settings: &Settings) -> ExitCode {
    let mut stop = match Stop::listen() {
        Ok(stop) => stop,
        Err(error) => {
            let words = format!("installing signal handlers failed: {error}");
            return ended(Verdict::MissingTool, &words);
        }
    };
    let story = Story::new(false);
    let metrics = Metrics::default();
    let supervisor = Supervisor::new(|name| std::env::var_os(name));
    let once = settings.args.once;
    if let Some(address) = settings.args.metrics.filter(|_| !once)
        && let Err(error) = metrics.serve(address).await
    {
        return ended(Verdict::MissingTool, &format!("{error:#}"));
    }
    let mut follower = Follower::new(settings, Clock::start(), story.clone(), metrics, supervisor);
    if once {
        return tokio::select! {
            code = do_once(settings, &mut follower, &story) => code,
            signal = stop.wait() => ExitCode::from(Verdict::Interrupted(signal).code()),
        };
    }
    follower.follow(&mut stop).await;
    story.end();
    let ended = stop
        .requested()
        .map_or(Verdict::Internal, Verdict::Interrupted);
    ExitCode::from(ended.code())
}

/// One round, or what it would do.
async fn do_once(settings: &Settings, follower: &mut Follower<'_>, story: &Story) -> ExitCode {
    let dry_run = settings.args.dry_run;
    let round = loop {
        let round = if dry_run {
            plan(settings, follower, story).await
        } else {
            follower.round().await
        };
        if round != Round::Overtaken {
            break round;
        }
    };
    let verdict = match &round {
        Round::Follows { .. } => Verdict::Pass,
        Round::Unwritable(_) => Verdict::MissingTool,
        _ => Verdict::Refused,
    };
    if !dry_run || verdict != Verdict::Pass {
        story.say(&follower.told(&round));
    }
    story.end();
    ExitCode::from(verdict.code())
}

/// What a round would write, on stdout.
async fn plan(settings: &Settings, follower: &mut Follower<'_>, story: &Story) -> Round {
    let node = match follower.choose().await {
        Ok(node) => node,
        Err(round) => return round,
    };
    let text = databases::render(&settings.databases, &node.host, node.port);
    let file = &settings.args.file;
    let differs = match databases::read(file) {
        Ok(found) => found.as_deref() != Some(text.as_bytes()),
        Err(error) => return Round::Unwritable(error.to_string()),
    };
    let pooler = follower.goes_to(&node).await;
    story.say(&format!(
        "{} takes writes; {} {}; the pooler {pooler}; nothing was changed",
        node.told(),
        file.display(),
        if differs {
            "would be written"
        } else {
            "is right already"
        },
    ));
    tell(&text);
    Round::Follows {
        node,
        moved: false,
        dropped: 0,
    }
}

fn ended(verdict: Verdict, words: &str) -> ExitCode {
    let story = Story::new(false);
    story.end();
    story.say(&format!("{verdict}: {words}"));
    ExitCode::from(verdict.code())
}

/// A reader that went away is no reason to lose the exit code.
fn tell(text: &str) {
    let mut stdout = std::io::stdout();
    let _ = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
}
