//! The course of a drill, the same for every check that breaks something: arguments, a look, the plan
//! and its permission, the watch, the fault with its evidence, the wait, the heal, the report.
//!
//! ```text
//! parse ─► site ─► resolve ─► clear of earlier faults ─► measure ─► plan, permission, window, consent
//!       ─► journal with watchdog ─► chores of earlier runs ─► start the watch (warm-up)
//!       ─► inject, evidence ─► until service is back ─► provisional report ─► heal
//!       ─► until redundant ─► finish the watch ─► close the journal ─► afterwards ─► judge ─► report
//! ```
//! What a check supplies, and nothing else, is in two traits:
//!
//! - [`Check`], implemented by its parsed arguments (a clap `Parser` that flattens [`DrillArgs`]): its
//!   name, whom it is about ([`Check::resolve`]), what was found ([`Check::measure`]), which instances
//!   the fault breaks and which servers tell of it ([`Check::broken`], [`Check::controls`]), what is
//!   broken on top of it, if something is ([`Check::later`], [`Watch::until_next`]), what else belongs to
//!   the system ([`Check::members`]), what only this program can clean up ([`Check::chores`],
//!   [`Check::chore`]), the watch ([`Check::start`]), the promises ([`Check::judge`]), and its part of the
//!   report ([`Check::tell`]).
//! - [`Watch`]: what a client and the system say, from before the fault until redundancy is back.
//!   A [`Client`] does the client's half of it.
//!
//! A run may have several acts ([`Check::next`]): each is a whole course of its own, from the look to the last report,
//! and each fault is healed before the next one is made. What is known only to the check is handed on in its
//! arguments; there is one report of all acts at the end, and the chores of the run may be left to it ([`Check::chores_last`]).
//!
//! Its `main` is `veza_probe::drill::main::<Args>()`. Before the journal an error is an [`Untouched`];
//! from the fault on nothing returns early, and a panic of the check's own code is healed.

mod parse;
mod site;
mod plan;
mod injection;
mod stages;
mod client;
mod reports;
mod run;
mod acts;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches};

use crate::arguments::DrillArgs;
use crate::clock::{At, Clock, Stop};
use crate::environment;
use crate::fault::{Fault, Healed, Kind, Plan};
use crate::instance::InstanceName;
use crate::outage;
use crate::outpost::OUTPOST_WORD;
use crate::pulse::Pulse;
use crate::report::{self, Folder, Report, Untouched, keep};
use crate::story::Story;
use crate::undo::{self, Chore, Leash, WATCHDOG_WORD};
use crate::verdict::{Experiment, Gate, Judgement, Measured};
use crate::way::Way;

pub use client::{Client, ClientSaw};
pub use parse::{Parsed, parse, usage};
pub use site::{Site, connect, of_incus};

use acts::Cast;
use reports::missing;

/// How long healing may take in all: two boots of a container and some.
pub const HEAL_LIMIT: Duration = Duration::from_secs(120);

/// How long beyond the warm-up a client may take to become steady: first writes into a new table, and
/// on a machine that was just started, may be slow.
pub const STEADY_LIMIT: Duration = Duration::from_secs(10);

/// How long the watchdog waits beyond the longest fault for a check that should be healing by then;
/// evidence may have been looked for in vain meanwhile.
const GRACE: Duration = Duration::from_secs(15);

/// How long the injecting calls themselves may take: a unit may be slow to stop.
const INJECT_LIMIT: Duration = Duration::from_secs(60);

/// A check that breaks something: its arguments, and what is its own in the course of a drill.
pub trait Check: CommandFactory + FromArgMatches + Sized {
    /// Its name: in reports, in records, and as a program.
    const NAME: &'static str;

    /// The variables that its secrets come from, or whose `_FILE` they do: `PGAF_MONITOR_PASSWORD`.
    const SECRETS: &'static [&'static str];

    /// Whom it is about: arguments turned into logins and addresses.
    type Targets;

    /// What was found before anything was touched.
    type Baseline;

    /// The observation under way.
    type Watch: Watch<Self>;

    /// Everything that was seen.
    type Observation;

    /// The arguments that every drill has.
    fn drill(&self) -> &DrillArgs;

    /// Reads what clap takes as it is, so that a bad value (which may hold a password) is never repeated
    /// in a message. `typed` tells whether the argument of this id was on the command line.
    ///
    /// # Errors
    /// A sentence for the user, with the flag or the variable.
    fn complete(&mut self, typed: &dyn Fn(&str) -> bool) -> Result<(), String>;

    /// What is done to the instances of [`Check::broken`].
    fn fault(&self) -> Kind;

    /// The longest that a client may be without service; 1.5 times as long is the default of the longest
    /// fault.
    fn rto_target(&self) -> Duration;

    /// The longest that [`Check::start`] may take before its warm-up, beside the minute that every check has: the
    /// watchdog ends a check that is later with its fault.
    fn preparation(&self) -> Duration {
        Duration::ZERO
    }

    /// The longest until redundancy is back after the heal.
    fn redundancy_target(&self) -> Duration;

    /// The system's name in reports, records, and `--confirm`.
    fn system(&self) -> String;

    /// Turns arguments into logins and addresses; nothing is asked of the system yet.
    ///
    /// # Errors
    /// Usage, refused or missing tool.
    fn resolve(
        &self,
        clock: &Clock,
        site: &Site,
    ) -> impl Future<Output = Result<Self::Targets, Untouched>>;

    /// Measures the system, and finds it healthy.
    ///
    /// # Errors
    /// Refused, with the reason.
    fn measure(
        &self,
        clock: &Clock,
        site: &Site,
        targets: &Self::Targets,
        story: &Story,
    ) -> impl Future<Output = Result<Self::Baseline, Untouched>>;

    /// What the fault breaks: never empty, also where nothing is to be broken (`--fault none`).
    fn broken(&self, found: &Found<Self>) -> Vec<Broken>;

    /// Members that answer over the same path as long as we are not blind, the best one first.
    fn controls(&self, found: &Found<Self>) -> Vec<Asked>;

    /// What is broken later, one after the other, while all before stays broken; everything is healed
    /// together. How long each is watched before the next, [`Watch::until_next`] says.
    fn later(&self, _found: &Found<Self>) -> Vec<Later> {
        Vec::new()
    }

    /// Every instance of the system, those of [`Check::broken`] among them, in any order.
    fn members(&self, found: &Found<Self>) -> Vec<InstanceName>;

    /// What only this program can clean up after the run of this name, should it be killed.
    fn chores(&self, found: &Found<Self>, run: &str) -> Vec<Chore>;

    /// Does a chore that an earlier run left, as its watchdog or a later run of the same program.
    ///
    /// # Errors
    /// What stood in the way.
    fn chore(&self, chore: &Chore) -> impl Future<Output = Result<String, String>>;

    /// Starts the watch and lets it warm up; a `--dry-run` comes as far as this. `run` is the run's name.
    ///
    /// # Errors
    /// Refused when the client is not steady before the fault, or can't be made; nothing is left behind
    /// then.
    fn start(
        &self,
        clock: &Clock,
        found: &Found<Self>,
        run: &str,
        story: &Story,
        stop: &mut Stop,
    ) -> impl Future<Output = Result<Self::Watch, Untouched>>;

    /// The gates, and the verdict on them and on what was seen. Pure. What outranks every gate (a fault
    /// that may remain, a bug, a signal, a halt) is judged elsewhere, by [`crate::verdict::Ended`];
    /// [`SoFar::experiment`] knows when nothing was proven.
    fn judge(&self, so_far: &SoFar<'_, Self>) -> (Vec<Gate>, Judgement);

    /// Adds all that is the check's own to a report that has its system, the conditions `version` and
    /// `Incus`, fault, undo, gates, and the notes of plan and run.
    fn tell(&self, so_far: &SoFar<'_, Self>, report: &mut Report);

    /// What is done at last when a drill that broke something came to its end; returns notes.
    fn afterwards(
        &self,
        _clock: &Clock,
        _found: &Found<Self>,
        _story: &Story,
    ) -> impl Future<Output = Vec<String>> {
        async { Vec::new() }
    }

    /// The name of this act, where a run may have several: its gates are named by it. None of a check whose runs
    /// are one act.
    fn act(&self) -> Option<String> {
        None
    }

    /// The next act, with all that this one hands on; asked when one came to its end and its fault was undone. A
    /// signal, a halt, a bug or a fault that was not undone ends the run instead.
    fn next(&self, _so_far: &SoFar<'_, Self>) -> Option<Self> {
        None
    }

    /// Whether its chores are done when the run has ended, of a check whose acts leave something to one another.
    /// Otherwise each watch takes away what it made, and a chore is only for a run that was killed.
    fn chores_last(&self) -> bool {
        false
    }

    /// The whole life of an outpost ([`crate::outpost::stand`]), of a check that has them.
    fn stand_outpost() -> Option<ExitCode> {
        None
    }
}

/// The watch of a check under way.
pub trait Watch<C: Check> {
    /// Notes something that this tool did, for story and time line.
    fn note(&mut self, what: String);

    /// The network reaches what was broken no longer (`partition`): from now on it is asked from inside
    /// its instance, if at all.
    fn cut_off(&mut self, _found: &Found<C>) {}

    /// It was healed: the network reaches everything again.
    fn joined(&mut self) {}

    /// Why nothing more is known of the client, where its observer was lost.
    fn lost(&self) -> Option<String>;

    /// Waits until what is broken so far was watched for long enough, before the next of [`Check::later`] is;
    /// for at most `limit` after the fault, or until a signal.
    fn until_next(
        &mut self,
        _fault: &Fault,
        _limit: Duration,
        _stop: &mut Stop,
    ) -> impl Future<Output = ()> {
        async {}
    }

    /// Waits until clients succeed again and go on doing so, for at most `limit` after the fault, or until
    /// a signal. A control run is watched for a fixed time.
    fn until_service_back(
        &mut self,
        fault: &Fault,
        limit: Duration,
        stop: &mut Stop,
    ) -> impl Future<Output = ()>;

    /// Waits until the next fault would be survived, for at most `limit` after `since`, or until a signal.
    fn until_redundant(
        &mut self,
        since: At,
        limit: Duration,
        stop: &mut Stop,
    ) -> impl Future<Output = ()>;

    /// What was seen so far, for the provisional report; nothing is stopped.
    fn so_far(&self) -> C::Observation;

    /// Ends it, reads what became of the writes, and takes away what it had made.
    fn finish(self, found: &Found<C>) -> impl Future<Output = C::Observation>;
}

/// What is known before the fault.
pub struct Found<C: Check> {
    /// Where it takes place.
    pub site: Site,
    /// Whom it is about.
    pub targets: C::Targets,
    /// What was found.
    pub baseline: C::Baseline,
}

/// A server that can be asked for a sign of life, and how it is reached.
#[derive(Clone)]
pub struct Asked {
    /// The server. Where whoever heals asks from another place than here, it says so.
    pub pulse: Pulse,
    /// The way to it from here.
    pub way: Way,
}

/// What a fault breaks.
#[derive(Clone)]
pub struct Broken {
    /// The instance.
    pub instance: InstanceName,
    /// The server in it that must fall silent, and answer again before anything counts as undone.
    pub asked: Asked,
}

/// What is broken later, and how that is known.
#[derive(Clone)]
pub struct Later {
    /// What is done.
    pub kind: Kind,
    /// To whom: never empty.
    pub broken: Vec<Broken>,
    /// Members that answer over the same path as long as we are not blind, although all of this and of what
    /// came before is broken.
    pub controls: Vec<Asked>,
}

/// What a run has gathered when a report is due.
pub struct SoFar<'a, C: Check> {
    /// What was found before.
    pub found: &'a Found<C>,
    /// What was to be broken.
    pub plan: &'a Plan,
    /// What was broken.
    pub fault: Option<&'a Fault>,
    /// What healing did.
    pub healed: Option<&'a Healed>,
    /// What was seen.
    pub observation: Option<&'a C::Observation>,
    /// What a person should know.
    notes: Vec<String>,
}

impl<C: Check> SoFar<'_, C> {
    /// When healing began.
    pub fn healing_began(&self) -> Option<At> {
        let first = self.healed.and_then(|healed| healed.steps.first());
        first.map(|step| step.began)
    }

    /// What it came to as an experiment, with what the client saw.
    pub fn experiment(&self, check: &C, client: Option<&ClientSaw>) -> Experiment {
        let mut experiment = Experiment {
            target: broken(check, self.found),
            ..Experiment::default()
        };
        let Some(fault) = self.fault else {
            return experiment;
        };
        experiment.control_run = !fault.plan.kind.breaks();
        experiment.evidence = fault.is_proven();
        experiment.trouble = fault.first_trouble().cloned();
        if let Some(client) = client {
            let outages = outage::outages(client.steady());
            let longest = outage::client_outage(&outages, check.drill().settle);
            experiment.outage_s = longest.map(Measured::from);
            experiment.service_back = outages.last().is_none_or(|last| last.ended_by.is_some());
            experiment.blind = client.blind();
        }
        experiment
    }
}

/// The instances that are to be broken, for people.
fn broken<C: Check>(check: &C, found: &Found<C>) -> String {
    let later = check
        .later(found)
        .into_iter()
        .flat_map(|stage| stage.broken);
    let broken = check.broken(found).into_iter().chain(later);
    let mut names: Vec<_> = broken.map(|broken| broken.instance.to_string()).collect();
    let mut told = BTreeSet::new();
    names.retain(|name| told.insert(name.clone()));
    names.join(", ")
}

/// The whole of a check: `main` of its program.
pub fn main<C: Check>() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    let word = args.get(1).and_then(|word| word.to_str());
    if word == Some(WATCHDOG_WORD) {
        args.remove(1);
        return stand_watch::<C>(args);
    }
    if word == Some(OUTPOST_WORD)
        && let Some(code) = C::stand_outpost()
    {
        return code;
    }
    let known = parse::variables::<C>();
    let entered = environment::enter(&args, &known, |name| std::env::var_os(name));
    if let Err(error) = entered {
        return told::<C>(&Clock::start(), &usage::<C>(error.to_string()));
    }
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => {
            let code = runtime.block_on(check::<C>(args));
            // Not waiting for a person who was asked something and is not needed any more.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            let reason = format!("starting the runtime failed: {error}");
            let judgement = missing("no-runtime", reason, "run it again");
            told::<C>(&Clock::start(), &judgement)
        }
    }
}

/// The life of a watchdog, before any thread is started.
fn stand_watch<C: Check>(args: Vec<OsString>) -> ExitCode {
    let Parsed::Run(check) = parse::<C>(args) else {
        return ExitCode::FAILURE;
    };
    undo::stand_watch(C::NAME, async |chore: &Chore| check.chore(chore).await)
}

async fn check<C: Check>(args: Vec<OsString>) -> ExitCode {
    let clock = Clock::start();
    let check = match parse::<C>(args) {
        Parsed::Run(check) => check,
        Parsed::Tell(text) => {
            print(&mut std::io::stdout(), &text);
            return ExitCode::SUCCESS;
        }
        Parsed::Look(paths) => match keep::look_at(&paths) {
            Ok(text) => {
                print(&mut std::io::stdout(), &text);
                return ExitCode::SUCCESS;
            }
            Err(words) => return told::<C>(&clock, &usage::<C>(words)),
        },
        Parsed::Usage(judgement) => return told::<C>(&clock, &judgement),
    };
    let (check, output) = (check.as_ref(), &check.drill().output);
    let (story, keep) = (Story::new(output.quiet), reports::keep(check));
    let unfinished = reports::unfinished(&clock, check);
    let kept = keep.look_at_metrics();
    let kept = kept.and_then(|()| keep.open(&clock, &story, &unfinished));
    let stop = Stop::listen().map_err(|error| no_signals(&error));
    let (report, kept) = match (stop, kept) {
        (Ok(stop), Ok(kept)) => {
            let report = attended(clock, check, &story, (stop, kept.as_ref())).await;
            (report, kept)
        }
        (Err(why), kept) => (reports::untouched(&clock, check, why), kept.ok().flatten()),
        (Ok(_), Err(why)) => (reports::untouched(&clock, check, why), None),
    };
    story.say(&format!("{}: {}", report.verdict, report.reason));
    keep.save(kept.as_ref(), &report, &story);
    keep.save_metrics(&report, &story);
    story.end();
    print(&mut std::io::stdout(), &keep::printed(output, &report));
    ExitCode::from(report.exit_code)
}

/// What ends a program before there is a run.
fn told<C: Check>(clock: &Clock, judgement: &Judgement) -> ExitCode {
    let report = Report::new(C::NAME, clock, judgement);
    print(&mut std::io::stderr(), &report::text(&report));
    ExitCode::from(report.exit_code)
}

/// A run, and what becomes of it when a panic ends it: the watchdog heals, and is waited for.
async fn attended<C: Check>(
    clock: Clock,
    check: &C,
    story: &Story,
    (stop, kept): (Stop, Option<&Folder>),
) -> Report {
    let leash = Leash::new();
    let cast = Cast {
        clock,
        story: story.clone(),
        stop,
        kept,
        leash: leash.clone(),
    };
    let ended = if check.drill().recover {
        undo::to_the_end(&leash, cast.recover(check)).await
    } else {
        undo::to_the_end(&leash, cast.play(check)).await
    };
    ended.unwrap_or_else(|bug| reports::of_a_bug(&clock, check, &bug))
}

/// A reader that went away is no reason to lose the exit code.
fn print(to: &mut impl Write, text: &str) {
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}

fn no_signals(error: &std::io::Error) -> Untouched {
    let reason = format!("installing signal handlers failed: {error}");
    missing("no-signal-handlers", reason, "run it again").into()
}
