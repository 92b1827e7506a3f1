//! pg-failover-check: breaks the primary of a pg_auto_failover formation, measures how long a client
//! could not write, puts it back, and waits until the formation is whole.

mod cli;
mod targets;
mod baseline;
mod fault;
mod observation;
mod verdict;
mod report;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use veza_probe::clock::{Clock, Signal, Stop};
use veza_probe::environment;
use veza_probe::fault::{Fault, Healed, HealedStep, Plan};
use veza_probe::incus::Incus;
use veza_probe::outpost::{self, OUTPOST_WORD};
use veza_probe::report::{Folder, Report, Untouched};
use veza_probe::story::Story;
use veza_probe::undo::{self, End, Journal, Leash, Recovered, WATCHDOG_WORD, guarded};
use veza_probe::verdict::{Judgement, Verdict};

use baseline::Baseline;
use cli::{Args, CHECK, Parsed};
use observation::heartbeat::NodeClient;
use observation::{Observation, Watch};
use report::{Gathered, keep, missing};
use targets::{Targets, of_incus, of_undo};
use verdict::{Promises, Seen};

fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    if args.get(1).is_some_and(|word| word == WATCHDOG_WORD) {
        args.remove(1);
        return stand_watch(args);
    }
    if args.get(1).is_some_and(|word| word == OUTPOST_WORD) {
        return outpost::stand(NodeClient::unpack);
    }
    let entered = environment::enter(&args, &cli::variables(), |name| std::env::var_os(name));
    if let Err(error) = entered {
        let clock = Clock::start();
        return told_usage(&clock, &cli::usage(error.to_string()));
    }
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => {
            let code = runtime.block_on(check(args));
            // Not waiting for a person who was asked something and is not needed any more.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            let reason = format!("starting the runtime failed: {error}");
            let judgement = missing("no-runtime", reason, "run it again");
            let report = Report::new(CHECK, &Clock::start(), &judgement);
            tell(&mut std::io::stderr(), &veza_probe::report::text(&report));
            ExitCode::from(report.exit_code)
        }
    }
}

/// The life of a watchdog, before any thread is started.
fn stand_watch(args: Vec<OsString>) -> ExitCode {
    let Parsed::Run(args) = cli::parse(args) else {
        return ExitCode::FAILURE;
    };
    undo::stand_watch(CHECK, async |chore| observation::chore(&args, chore).await)
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
    let kept = keep::look_at_metrics(&args).and_then(|()| keep::open(&args, &clock, &story));
    let stop = Stop::listen().map_err(no_signals);
    let (report, kept) = match (stop, kept) {
        (Ok(stop), Ok(kept)) => {
            let report = attended(clock, &args, &story, (stop, kept.as_ref())).await;
            (report, kept)
        }
        (Err(why), kept) => (report::untouched(&clock, &args, why), kept.ok().flatten()),
        (Ok(_), Err(why)) => (report::untouched(&clock, &args, why), None),
    };
    story.say(&format!("{}: {}", report.verdict, report.reason));
    keep::save_last(&args, kept.as_ref(), &report, &story);
    keep::save_metrics(&args, &report, &story);
    story.end();
    tell(
        &mut std::io::stdout(),
        &keep::printed(&args.output, &report),
    );
    ExitCode::from(report.exit_code)
}

fn told_usage(clock: &Clock, judgement: &Judgement) -> ExitCode {
    let report = Report::new(CHECK, clock, judgement);
    tell(&mut std::io::stderr(), &veza_probe::report::text(&report));
    ExitCode::from(report.exit_code)
}

/// A run, and what becomes of it when a panic ends it: the watchdog heals, and is waited for.
async fn attended(
    clock: Clock,
    args: &Args,
    story: &Story,
    (stop, kept): (Stop, Option<&Folder>),
) -> Report {
    let leash = Leash::new();
    let run = Run {
        clock,
        args,
        story: story.clone(),
        stop,
        kept,
        leash: leash.clone(),
    };
    let ended = if args.recover {
        undo::to_the_end(&leash, run.recover()).await
    } else {
        undo::to_the_end(&leash, run.run()).await
    };
    ended.unwrap_or_else(|bug| report::of_a_bug(&clock, args, &bug))
}

/// A reader that went away is no reason to lose the exit code.
fn tell(to: &mut impl Write, text: &str) {
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn no_signals(error: std::io::Error) -> Untouched {
    let reason = format!("installing signal handlers failed: {error}");
    missing("no-signal-handlers", reason, "run it again").into()
}

/// One run of the check.
struct Run<'a> {
    clock: Clock,
    args: &'a Args,
    story: Story,
    stop: Stop,
    kept: Option<&'a Folder>,
    leash: Leash,
}

/// What is known before the fault.
struct Ready {
    targets: Targets,
    baseline: Baseline,
    plan: Plan,
    notes: Vec<String>,
}

/// What a run has done to the system, and whether a bug of ours ended it.
#[derive(Default)]
struct Done {
    /// Why nothing was broken after all.
    refused: Option<Untouched>,
    fault: Option<Fault>,
    healed: Option<Healed>,
    /// Whether the watchdog did what healing here could not.
    rescued: bool,
    /// Why somebody forbade all drills meanwhile.
    halted: Option<String>,
    bug: Option<String>,
}

impl Run<'_> {
    async fn run(mut self) -> Report {
        let mut stop = self.stop.clone();
        let found = tokio::select! {
            found = self.look() => found,
            signal = stop.wait() => Err(interrupted(signal)),
        };
        let mut ready = match found {
            Ok(ready) => ready,
            Err(why) => return report::untouched(&self.clock, self.args, why),
        };
        let run = undo::run_id(&self.clock);
        let schema = (!self.args.read_only).then(|| observation::heartbeat::schema(&run));
        let observer = self.args.observe_from.as_ref();
        let chore =
            |schema: &String| observation::heartbeat::chore(&ready.baseline, observer, schema);
        let chores = schema.iter().map(chore).collect();
        let opened = fault::journal(
            &ready.targets,
            &self.clock,
            (&ready.plan, &run),
            &ready.baseline,
            (self.args, chores),
            &self.leash,
        );
        let journal = match opened.await {
            Ok(journal) => journal,
            Err(why) => return report::untouched(&self.clock, self.args, why),
        };
        ready.notes.extend(self.finish_chores(&ready.targets).await);
        let watch = observation::start(
            &self.clock,
            (&ready.targets, &ready.baseline, schema.as_deref()),
            self.args,
            &self.story,
            &mut self.stop,
        );
        let watch = match watch.await {
            Ok(watch) => watch,
            Err(why) => {
                let _ = journal.close(true).await;
                return report::untouched(&self.clock, self.args, why);
            }
        };
        match self.stop.requested() {
            None if !self.args.dry_run => self.drill(&ready, watch, journal).await,
            signal => self.without_fault(&ready, watch, journal, signal).await,
        }
    }

    async fn look(&self) -> Result<Ready, Untouched> {
        let targets = targets::resolve(&self.clock, self.args).await?;
        let clear = undo::clear_of_earlier_faults(
            &targets.state,
            &targets.incus,
            &targets.instances,
            &fault::system(self.args),
            CHECK,
        );
        clear.map_err(|refusal| of_undo(&refusal))?;
        let baseline = baseline::measure(&self.clock, &targets, self.args, &self.story).await?;
        let plan = fault::plan(&self.clock, &targets, &baseline, self.args).await?;
        fault::agreed(&self.clock, &self.story, &targets, &plan, self.args).await?;
        Ok(Ready {
            targets,
            baseline,
            plan,
            notes: Vec::new(),
        })
    }

    /// Mends what earlier drills left.
    async fn recover(self) -> Report {
        let recovered = async {
            let (incus, state) = targets::incus_only(self.args).await?;
            let wanted = undo::Wanted {
                expired_only: self.args.expired,
                take_over: self.args.take_over,
            };
            let chores = async |chore: &undo::Chore| observation::chore(self.args, chore).await;
            let done = undo::recover(&incus, &self.clock, &state, wanted, (CHECK, &chores)).await;
            let done = done.map_err(|why| match why {
                undo::Unrecovered::Incus(error) => of_incus(&error),
                undo::Unrecovered::State(refusal) => of_undo(&refusal),
            })?;
            let note = self.timer_ran(&incus, &done).await;
            Ok((done, note))
        };
        match recovered.await {
            Ok((recovered, note)) => report::recovered(&self.clock, self.args, recovered, note),
            Err(why) => report::untouched(&self.clock, self.args, why),
        }
    }

    /// Where this is the timer of the Incus host, and could mend what it found, drills over a remote may
    /// rely on it.
    async fn timer_ran(&self, incus: &Incus, done: &Recovered) -> Option<String> {
        if !self.args.expired || done.any(End::NotUndone) {
            return None;
        }
        let error = undo::timer_ran(incus, &self.clock).await.err()?;
        Some(format!(
            "drills over a remote will be refused, because the time of this run could not be kept: {error}"
        ))
    }

    /// Cleans up after earlier runs that were killed.
    async fn finish_chores(&self, targets: &Targets) -> Vec<String> {
        let chores = async |chore: &undo::Chore| observation::chore(self.args, chore).await;
        undo::finish_chores(&targets.state, &targets.incus, (CHECK, &chores)).await
    }

    /// A dry run, or a signal that came before the fault.
    async fn without_fault(
        &self,
        ready: &Ready,
        watch: Watch,
        journal: Journal,
        signal: Option<Signal>,
    ) -> Report {
        let observation = watch.finish(&ready.baseline).await;
        let _ = journal.close(true).await;
        let judgement = match signal {
            Some(signal) => interrupted(signal).judgement,
            None => report::planned(&ready.plan),
        };
        let notes = vec!["nothing was broken".to_owned()];
        let gathered = Gathered {
            targets: &ready.targets,
            baseline: &ready.baseline,
            plan: &ready.plan,
            fault: None,
            healed: None,
            observation: Some(&observation),
            gates: Vec::new(),
            notes: ready.notes.iter().cloned().chain(notes).collect(),
        };
        report::assemble(&self.clock, self.args, &judgement, gathered)
    }

    /// From the fault on there is no early return: whatever happens around the watch, it is healed.
    async fn drill(mut self, ready: &Ready, mut watch: Watch, mut journal: Journal) -> Report {
        let mut done = Done::default();
        let broken = guarded(self.break_and_watch(ready, &mut watch, &mut journal, &mut done));
        done.bug = broken.await.err();
        if let Some(why) = done.refused.take() {
            return self.refused(ready, watch, journal, why).await;
        }
        let provisional = guarded(async { watch.so_far() }).await.ok();
        let report = self.judged(ready, &done, provisional.as_ref(), Vec::new());
        keep::save(self.kept, &report, &self.story);
        watch.note(format!("healing: {}", ready.plan.undo.told()));
        let mut healed = self.heal(ready, &journal).await;
        watch.joined();
        if healed.undone() {
            let rest = self.args.redundancy_target + fault::HEAL_LIMIT;
            healed.steps.extend(journal.undone(&self.clock, rest).await);
        }
        done.healed = Some(healed);
        let whole = guarded(self.watch_return(ready, &mut watch, &done)).await;
        done.bug = done.bug.or(whole.err());
        let observation = match guarded(watch.finish(&ready.baseline)).await {
            Ok(observation) => Some(observation),
            Err(bug) => {
                done.bug.get_or_insert(bug);
                None
            }
        };
        let mut notes = self.close(&mut done, journal).await;
        notes.extend(self.switch_back(ready, &done).await);
        self.judged(ready, &done, observation.as_ref(), notes)
    }

    /// Nothing was broken after all: a key of another drill, or the watchdog had gone.
    async fn refused(
        &self,
        ready: &Ready,
        watch: Watch,
        journal: Journal,
        why: Untouched,
    ) -> Report {
        watch.finish(&ready.baseline).await;
        // It takes keys away that were set before the refusal, and the record.
        let cleaned = journal.close(false).await;
        let mut report = report::untouched(&self.clock, self.args, why);
        report
            .notes
            .extend(cleaned.err().map(|outcome| outcome.words));
        report
    }

    async fn break_and_watch(
        &mut self,
        ready: &Ready,
        watch: &mut Watch,
        journal: &mut Journal,
        done: &mut Done,
    ) {
        let (plan, baseline) = (&ready.plan, &ready.baseline);
        let incus = &ready.targets.incus;
        self.story.say(&format!("fault: {}", plan.told()));
        let injected = fault::inject(incus, &self.clock, plan, baseline, journal).await;
        let injected = match injected {
            Ok(fault) => done.fault.insert(fault),
            Err(why) => {
                done.refused = Some(why);
                return;
            }
        };
        if fault::cuts_off(plan) {
            watch.cut_off(incus, baseline);
        }
        match (&injected.evidence, &injected.trouble) {
            (Some(evidence), _) => self.story.say(&format!(
                "evidence: {}, while {}",
                evidence.target, evidence.control
            )),
            (None, Some(trouble)) => self.story.say(&format!("the fault failed: {trouble}")),
            (None, None) if !plan.kind.breaks() => {}
            (None, None) => self.story.say("no evidence that the fault took hold"),
        }
        if injected.evidence.is_some() || !plan.kind.breaks() {
            let limit = self.args.max_fault();
            tokio::select! {
                _ = watch.until_service_back(injected, limit, &mut self.stop) => {}
                words = undo::halted(incus) => done.halted = Some(words),
            }
        }
    }

    /// Heals, whatever signal comes meanwhile; a person who is impatient is told how long it may take.
    async fn heal(&self, ready: &Ready, journal: &Journal) -> Healed {
        let began = self.clock.at();
        let limit = fault::HEAL_LIMIT;
        journal.healing(2 * limit).await;
        let mut stop = self.stop.clone();
        let (incus, undo) = (&ready.targets.incus, &ready.plan.undo);
        let heal = guarded(veza_probe::fault::heal(incus, &self.clock, undo, limit));
        tokio::pin!(heal);
        let healed = loop {
            tokio::select! {
                healed = &mut heal => break healed,
                () = stop.again() => {
                    let spent = self.clock.at().us_since(began) as f64 / 1e6;
                    self.story.say(&format!(
                        "healing goes on, for at most {:.0} s more; then this ends by itself",
                        (limit.as_secs_f64() - spent).max(0.0)
                    ));
                }
            }
        };
        healed.unwrap_or_else(|bug| Healed {
            steps: vec![HealedStep {
                step: "heal".to_owned(),
                began,
                done: None,
                words: bug,
            }],
        })
    }

    /// Redundancy is worth waiting for only when the drill goes on.
    async fn watch_return(&mut self, ready: &Ready, watch: &mut Watch, done: &Done) {
        let healed = done.healed.as_ref();
        let began = healed.and_then(|h| h.steps.first()).map(|s| s.began);
        let undone = healed.is_some_and(Healed::undone) && ready.plan.kind.breaks();
        // Without its observer nothing more will be seen.
        let goes_on = done.bug.is_none() && done.halted.is_none() && watch.lost().is_none();
        if let Some(began) = began.filter(|_| undone && goes_on)
            && self.stop.requested().is_none()
        {
            let limit = self.args.redundancy_target;
            watch.until_redundant(began, limit, &mut self.stop).await;
        }
    }

    /// Gives back what the journal held; where something was not undone, the watchdog tries.
    async fn close(&self, done: &mut Done, journal: Journal) -> Vec<String> {
        let undone = done.healed.as_ref().is_some_and(Healed::undone);
        if !undone {
            self.story.say("not undone: the watchdog tries now");
        }
        match journal.close(undone).await {
            Ok(()) if undone => Vec::new(),
            Ok(()) => {
                done.rescued = true;
                vec!["the watchdog undid what healing here could not".to_owned()]
            }
            Err(outcome) => vec![format!("{}: {}", outcome.by, outcome.words)],
        }
    }

    /// Gives the roles back, where that was asked for and the drill came to its end.
    async fn switch_back(&self, ready: &Ready, done: &Done) -> Vec<String> {
        let came_through = done.bug.is_none() && self.stop.requested().is_none();
        if !self.args.switch_back || !ready.plan.kind.breaks() || !came_through {
            return Vec::new();
        }
        self.story.say("switching back");
        let limit = self.args.redundancy_target;
        let back = observation::switch_back(&self.clock, &ready.baseline, limit);
        match guarded(back).await {
            Ok(Ok(took_s)) => vec![format!("roles were switched back in {took_s:.1} s")],
            Ok(Err(words)) | Err(words) => vec![format!("roles were not switched back: {words}")],
        }
    }

    fn judged(
        &self,
        ready: &Ready,
        done: &Done,
        observation: Option<&Observation>,
        notes: Vec<String>,
    ) -> Report {
        let primary = ready.baseline.primary();
        let mut seen = Seen {
            target: primary.instance.to_string(),
            read_only: self.args.read_only,
            interrupted: self.stop.requested(),
            bug: done.bug.clone(),
            halted: done.halted.clone(),
            look_now: report::look_now(self.args),
            ..Seen::default()
        };
        let healed = done.healed.as_ref();
        let began = healed.and_then(|h| h.steps.first()).map(|s| s.began);
        if let Some(fault) = &done.fault {
            seen.faulted(fault);
            if let Some(observation) = observation {
                seen.observed(observation, self.args.settle, primary.node.id, began);
                seen.asked(&observation.rivals, primary.node.id, fault, began);
            }
        }
        if let Some(healed) = healed {
            seen.healed(healed, done.rescued);
        }
        let promises = Promises {
            rto_s: self.args.rto_target.as_secs_f64(),
            redundancy_s: self.args.redundancy_target.as_secs_f64(),
            lost_writes: self.args.max_lost_writes,
        };
        let gates = verdict::gates(&seen, &promises);
        let judgement = verdict::judge(&seen, &gates);
        let gathered = Gathered {
            targets: &ready.targets,
            baseline: &ready.baseline,
            plan: &ready.plan,
            fault: done.fault.as_ref(),
            healed,
            observation,
            gates,
            notes: ready.notes.iter().cloned().chain(notes).collect(),
        };
        report::assemble(&self.clock, self.args, &judgement, gathered)
    }
}

fn interrupted(signal: Signal) -> Untouched {
    let reason = format!("{signal} ended the run before anything was broken");
    let verdict = Verdict::Interrupted(signal);
    Judgement::new(verdict, "interrupted", reason, "run it again").into()
}
