//! pgbouncer-load: loads a PgBouncer with pgbench, watches both, and believes neither of them alone.

mod cli;
mod targets;
mod baseline;
mod observation;
mod verdict;
mod report;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use veza_probe::clock::{Clock, Stop};
use veza_probe::environment;
use veza_probe::report::{Report, Untouched, keep};
use veza_probe::story::Story;
use veza_probe::undo;
use veza_probe::verdict::{Judgement, Verdict};

use baseline::Baseline;
use cli::{Args, CHECK, Parsed};
use observation::{Cut, Round, Watch};
use targets::Targets;
use verdict::Promises;

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
            let judgement = targets::missing("no-runtime", reason, "run it again").judgement;
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
    let keep = report::keep(&args);
    let kept = keep.look_at_metrics();
    let kept = kept.and_then(|()| keep.open(&clock, &story, &report::unfinished(&clock)));
    let (report, kept) = match (Stop::listen(), kept) {
        (Ok(stop), Ok(kept)) => (attended(clock, &args, &story, stop).await, kept),
        (Err(error), kept) => {
            let reason = format!("installing signal handlers failed: {error}");
            let why = targets::missing("no-signal-handlers", reason, "run it again");
            (report::untouched(&clock, &args, why), kept.ok().flatten())
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

/// A run, and what becomes of it when a panic ends it: pgbench ends with what holds it.
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
    let found = tokio::select! {
        found = look(args) => found,
        signal = stop.wait() => Err(verdict::of_cut(&Cut::Stopped(signal)).into()),
    };
    let (targets, baseline) = match found {
        Ok(found) => found,
        Err(why) => return report::untouched(&clock, args, why),
    };
    let promises = match promises(args, &baseline) {
        Ok(promises) => promises,
        Err(why) => return report::untouched(&clock, args, why),
    };
    if let Err(why) = in_window(clock, args, &baseline) {
        return report::untouched(&clock, args, why);
    }
    let about = (&targets, &baseline);
    if args.dry_run {
        let judgement = planned(args, &baseline, &targets);
        return report::assemble(&clock, args, &judgement, about, (&[], Vec::new()));
    }
    let watch = Watch {
        clock,
        targets: &targets,
        baseline: &baseline,
        args,
        story,
    };
    let (rounds, cut) = load(&watch, &mut stop).await;
    let pooled = rounds.iter().filter(|round| !round.direct);
    let seen: Vec<_> = pooled
        .map(|round| verdict::seen(round, baseline.clients_before))
        .collect();
    let gates = match seen.is_empty() {
        true => Vec::new(),
        false => verdict::gates(&promises, &seen),
    };
    let judgement = verdict::judge(&promises, &seen, &gates, cut.as_ref());
    report::assemble(&clock, args, &judgement, about, (&rounds, gates))
}

async fn look(args: &Args) -> Result<(Targets, Baseline), Untouched> {
    let targets = targets::resolve(args).await?;
    let baseline = baseline::measure(&targets, args).await?;
    Ok((targets, baseline))
}

/// Refuses a load that might not end in the hours that were given to it.
fn in_window(clock: Clock, args: &Args, baseline: &Baseline) -> Result<(), Untouched> {
    let Some(window) = &args.window else {
        return Ok(());
    };
    let longest = observation::longest(args, baseline.tables);
    let fits = window.fits(clock.wall(clock.at()), longest);
    fits.map_err(|words| {
        let next = "run it in the window, or with fewer or shorter rounds";
        Judgement::new(Verdict::Refused, "outside-window", words, next).into()
    })
}

/// All rounds, until one is cut off.
async fn load(watch: &Watch<'_>, stop: &mut Stop) -> (Vec<Round>, Option<Cut>) {
    let mut rounds = Vec::new();
    if let Err(cut) = watch.prepare(stop).await {
        return (rounds, Some(cut));
    }
    for number in 1..=watch.args.rounds {
        for direct in [false, true] {
            if direct && !watch.args.direct {
                continue;
            }
            match watch.round(number, direct, stop).await {
                Ok(round) => {
                    let cut = round.cut.clone();
                    rounds.push(round);
                    if cut.is_some() {
                        return (rounds, cut);
                    }
                }
                Err(cut) => return (rounds, Some(cut)),
            }
        }
    }
    (rounds, None)
}

/// What a dry run comes to.
fn planned(args: &Args, baseline: &Baseline, targets: &Targets) -> Judgement {
    let tables = match baseline.tables {
        baseline::Tables::Make => format!("make pgbench's tables of scale {}, and ", args.scale),
        _ => String::new(),
    };
    let direct = if args.direct {
        ", each also past the pooler"
    } else {
        ""
    };
    let reason = format!(
        "would {tables}load {} with {} clients for {} s, {} times{direct}, with pgbench on {}",
        targets::system(args),
        args.clients,
        args.seconds,
        args.rounds,
        targets.place.told()
    );
    Judgement::new(
        Verdict::Planned,
        "dry-run",
        reason,
        "the same command without --dry-run",
    )
}

/// What is promised; an earlier run counts only when it was made under the same conditions.
fn promises(args: &Args, baseline: &Baseline) -> Result<Promises, Untouched> {
    let earlier = match &args.earlier {
        Some(report) => Some((earlier(report, baseline)?, args.max_regression)),
        None => None,
    };
    Ok(Promises {
        clients: args.clients,
        seconds: args.seconds,
        max_failed: args.max_failed,
        max_connection_errors: args.max_connection_errors,
        p99_max_ms: args.p99_max,
        tps_min: args.tps_min,
        maxwait_max_s: args.maxwait_max,
        earlier,
    })
}

/// Transactions per second of each round of an earlier run.
fn earlier(report: &Report, baseline: &Baseline) -> Result<Vec<f64>, Untouched> {
    let mut differ = Vec::new();
    for condition in &baseline.conditions {
        let then = report.conditions.iter().find(|c| c.name == condition.name);
        let then = then.map_or("unknown", |c| c.value.as_str());
        if then != condition.value {
            differ.push(format!(
                "{}: {then:?} then and {:?} now",
                condition.name, condition.value
            ));
        }
    }
    let tps = report.figures.iter().find(|figure| figure.id == "tps");
    match tps {
        _ if !differ.is_empty() => {
            let words = format!("--against: not comparable: {}", differ.join("; "));
            Err(cli::usage(words).into())
        }
        None => {
            let words = format!(
                "--against: that {CHECK} came to {}, without a figure tps",
                report.verdict
            );
            Err(cli::usage(words).into())
        }
        Some(_) if report.verdict != "pass" && report.verdict != "fail" => {
            let words = format!(
                "--against: that run came to {}, which is no measure",
                report.verdict
            );
            Err(cli::usage(words).into())
        }
        Some(figure) => Ok(figure.rounds.clone()),
    }
}
