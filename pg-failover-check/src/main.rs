//! pg-failover-check: stops the primary of a pg_auto_failover formation, measures how long a client
//! could not write, starts it again, and waits until the formation is whole.

mod cli;
mod targets;
mod baseline;
mod fault;
mod observation;
mod verdict;
mod report;

use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use futures_util::FutureExt;
use veza_probe::clock::{Clock, Signal, Stop};
use veza_probe::fault::{Fault, Healed, HealedStep, Kind, Plan};
use veza_probe::report::{Report, Untouched};
use veza_probe::story::Story;
use veza_probe::verdict::{Judgement, Verdict};

use baseline::Baseline;
use cli::{Args, Format, Parsed};
use observation::{Observation, Watch};
use report::Gathered;
use targets::Targets;
use verdict::{Promises, Seen};

#[tokio::main]
async fn main() -> ExitCode {
    let clock = Clock::start();
    let args = match cli::parse(std::env::args_os()) {
        Parsed::Run(args) => args,
        Parsed::Tell(text) => {
            tell(&mut std::io::stdout(), &text);
            return ExitCode::SUCCESS;
        }
        Parsed::Usage(judgement) => {
            let report = Report::new(report::CHECK, &clock, &judgement);
            tell(&mut std::io::stderr(), &veza_probe::report::text(&report));
            return ExitCode::from(report.exit_code);
        }
    };
    let story = Story::new(args.quiet);
    let opened = open_report(&args, &clock);
    let report = match Stop::listen()
        .map_err(no_signals)
        .and_then(|stop| opened.map(|()| stop))
    {
        Ok(stop) => {
            Run {
                clock,
                args: &args,
                story: story.clone(),
                stop,
            }
            .run()
            .await
        }
        Err(why) => report::untouched(&clock, &args, why),
    };
    save(&args, &report, &story);
    story.end();
    let text = match args.format {
        Format::Text => veza_probe::report::text(&report),
        Format::Json => report
            .json()
            .unwrap_or_else(|e| format!("{{\"error\": \"{e}\"}}\n")),
    };
    tell(&mut std::io::stdout(), &text);
    ExitCode::from(report.exit_code)
}

/// A reader that went away is no reason to lose the exit code.
fn tell(to: &mut impl Write, text: &str) {
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn no_signals(error: std::io::Error) -> Untouched {
    let reason = format!("installing signal handlers failed: {error}");
    Judgement::new(
        Verdict::MissingTool,
        "no-signal-handlers",
        reason,
        "run it again",
    )
    .into()
}

/// Saves a report that says that the run has not ended, in case it never does; so a folder that can't
/// be written to is told before anything is touched.
fn open_report(args: &Args, clock: &Clock) -> Result<(), Untouched> {
    let Some(folder) = &args.report else {
        return Ok(());
    };
    let reason = "the run has not ended, or was killed; the fault may be in place";
    let judgement = Judgement::new(Verdict::Internal, "unfinished", reason, "incus list");
    Report::new(report::CHECK, clock, &judgement)
        .save(folder)
        .map_err(|error| {
            let reason = format!("--report: {error}");
            let next = "correct the folder or its permissions";
            Judgement::new(Verdict::MissingTool, "report-unwritable", reason, next).into()
        })
}

fn save(args: &Args, report: &Report, story: &Story) {
    if let Some(folder) = &args.report
        && let Err(error) = report.save(folder)
    {
        story.say(&format!("the report could not be saved: {error}"));
    }
}

/// One run of the check.
struct Run<'a> {
    clock: Clock,
    args: &'a Args,
    story: Story,
    stop: Stop,
}

/// What a run has done to the system, and whether a bug of ours ended it.
#[derive(Default)]
struct Done {
    fault: Option<Fault>,
    healed: Option<Healed>,
    bug: Option<String>,
}

impl Run<'_> {
    async fn run(mut self) -> Report {
        let mut stop = self.stop.clone();
        let found = tokio::select! {
            found = self.look() => found,
            signal = stop.wait() => Err(interrupted(signal)),
        };
        let (targets, baseline) = match found {
            Ok(found) => found,
            Err(why) => return report::untouched(&self.clock, self.args, why),
        };
        let Some(plan) = fault::plan(&baseline, self.args) else {
            let why = baseline::refused("formation-not-whole", "no node is primary");
            return report::untouched(&self.clock, self.args, why);
        };
        let watch = observation::start(
            &self.clock,
            &baseline,
            self.args,
            &self.story,
            &mut self.stop,
        );
        let watch = match watch.await {
            Ok(watch) => watch,
            Err(why) => return report::untouched(&self.clock, self.args, why),
        };
        match self.stop.requested() {
            None if !self.args.dry_run => self.drill(&targets, &baseline, &plan, watch).await,
            signal => {
                self.without_fault(&targets, &baseline, &plan, watch, signal)
                    .await
            }
        }
    }

    async fn look(&self) -> Result<(Targets, Baseline), Untouched> {
        let targets = targets::resolve(self.args).await?;
        let baseline = baseline::measure(&self.clock, &targets, self.args, &self.story).await?;
        Ok((targets, baseline))
    }

    /// A dry run, or a signal that came before the fault.
    async fn without_fault(
        &self,
        targets: &Targets,
        baseline: &Baseline,
        plan: &Plan,
        watch: Watch,
        signal: Option<Signal>,
    ) -> Report {
        let observation = watch.finish(baseline).await;
        let judgement = match signal {
            Some(signal) => interrupted(signal).judgement,
            None => report::planned(plan),
        };
        let gathered = Gathered {
            targets,
            baseline,
            fault: None,
            healed: None,
            observation: Some(&observation),
            gates: Vec::new(),
            notes: vec!["nothing was broken".to_owned()],
        };
        report::assemble(&self.clock, self.args, &judgement, gathered)
    }

    /// From the fault on there is no early return: whatever happens around the watch, it is healed.
    async fn drill(
        mut self,
        targets: &Targets,
        baseline: &Baseline,
        plan: &Plan,
        mut watch: Watch,
    ) -> Report {
        let mut done = Done::default();
        let broken =
            guarded(self.break_and_watch(targets, baseline, plan, &mut watch, &mut done.fault));
        done.bug = broken.await.err();
        let provisional = guarded(async { watch.so_far() }).await.ok();
        save(
            self.args,
            &self.judged(targets, baseline, &done, provisional.as_ref(), Vec::new()),
            &self.story,
        );
        watch.note(format!("healing: {}", told(plan)));
        done.healed = Some(self.heal(targets, baseline, plan).await);
        let whole = guarded(self.watch_return(&mut watch, &done)).await;
        done.bug = done.bug.or(whole.err());
        let observation = match guarded(watch.finish(baseline)).await {
            Ok(observation) => Some(observation),
            Err(bug) => {
                done.bug.get_or_insert(bug);
                None
            }
        };
        let notes = self.switch_back(baseline, &done).await;
        self.judged(targets, baseline, &done, observation.as_ref(), notes)
    }

    async fn break_and_watch(
        &mut self,
        targets: &Targets,
        baseline: &Baseline,
        plan: &Plan,
        watch: &mut Watch,
        fault: &mut Option<Fault>,
    ) {
        self.story.say(&format!("fault: {}", told_fault(plan)));
        let injected = fault::inject(&targets.incus, &self.clock, plan, baseline).await;
        let injected = fault.insert(injected);
        match (&injected.evidence, &injected.trouble) {
            (Some(evidence), _) => {
                self.story.say(&format!(
                    "evidence: {}, while {}",
                    evidence.target, evidence.control
                ));
            }
            (None, Some(trouble)) => self.story.say(&format!("the fault failed: {trouble}")),
            (None, None) if plan.kind == Kind::None => {}
            (None, None) => self.story.say("no evidence that the fault took hold"),
        }
        if injected.evidence.is_some() || plan.kind == Kind::None {
            watch
                .until_service_back(injected, self.args.max_fault(), &mut self.stop)
                .await;
        }
    }

    /// Heals, whatever signal comes meanwhile; a person who is impatient is told how long it may take.
    async fn heal(&self, targets: &Targets, baseline: &Baseline, plan: &Plan) -> Healed {
        let began = self.clock.at();
        let mut stop = self.stop.clone();
        let heal = guarded(fault::heal(&targets.incus, &self.clock, plan, baseline));
        tokio::pin!(heal);
        let healed = loop {
            tokio::select! {
                healed = &mut heal => break healed,
                () = stop.again() => {
                    let spent = self.clock.at().us_since(began) as f64 / 1e6;
                    let limit = 2.0 * fault::HEAL_LIMIT.as_secs_f64();
                    self.story.say(&format!(
                        "healing goes on, for at most {:.0} s more; then this ends by itself",
                        (limit - spent).max(0.0)
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
    async fn watch_return(&mut self, watch: &mut Watch, done: &Done) {
        let control = self.args.fault == Kind::None;
        let began = done
            .healed
            .as_ref()
            .and_then(|h| h.steps.first())
            .map(|step| step.began);
        let undone = done.healed.as_ref().is_some_and(Healed::undone);
        if let Some(began) = began.filter(|_| undone && !control && done.bug.is_none())
            && self.stop.requested().is_none()
        {
            let limit = self.args.redundancy_target;
            watch.until_redundant(began, limit, &mut self.stop).await;
        }
    }

    /// Gives the roles back, where that was asked for and the drill came to its end.
    async fn switch_back(&self, baseline: &Baseline, done: &Done) -> Vec<String> {
        let came_through = done.bug.is_none() && self.stop.requested().is_none();
        if !self.args.switch_back || self.args.fault == Kind::None || !came_through {
            return Vec::new();
        }
        self.story.say("switching back");
        let limit = self.args.redundancy_target;
        match guarded(observation::switch_back(&self.clock, baseline, limit)).await {
            Ok(Ok(took_s)) => vec![format!("roles were switched back in {took_s:.1} s")],
            Ok(Err(words)) | Err(words) => vec![format!("roles were not switched back: {words}")],
        }
    }

    fn judged(
        &self,
        targets: &Targets,
        baseline: &Baseline,
        done: &Done,
        observation: Option<&Observation>,
        notes: Vec<String>,
    ) -> Report {
        let mut seen = Seen {
            bug: done.bug.clone(),
            ..Seen::default()
        };
        seen.target = baseline
            .primary()
            .map(|m| m.instance.to_string())
            .unwrap_or_default();
        seen.interrupted = self.stop.requested();
        if let Some(fault) = &done.fault {
            seen.faulted(fault);
        }
        if let Some(healed) = &done.healed {
            seen.healed(healed);
        }
        if let Some(observation) = observation {
            let healed = done
                .healed
                .as_ref()
                .and_then(|h| h.steps.first())
                .map(|s| s.began);
            seen.observed(observation, self.args.settle, healed);
        }
        let promises = Promises {
            rto_s: self.args.rto_target.as_secs_f64(),
            redundancy_s: self.args.redundancy_target.as_secs_f64(),
        };
        let gates = verdict::gates(&seen, &promises);
        let judgement = verdict::judge(&seen, &gates);
        let (fault, healed) = (done.fault.as_ref(), done.healed.as_ref());
        let gathered = Gathered {
            targets,
            baseline,
            fault,
            healed,
            observation,
            gates,
            notes,
        };
        report::assemble(&self.clock, self.args, &judgement, gathered)
    }
}

fn interrupted(signal: Signal) -> Untouched {
    let reason = format!("{signal} ended the run before anything was broken");
    Judgement::new(
        Verdict::Interrupted(signal),
        "interrupted",
        reason,
        "run it again",
    )
    .into()
}

fn told_fault(plan: &Plan) -> String {
    let targets: Vec<_> = plan
        .targets
        .iter()
        .map(|t| t.instance.to_string())
        .collect();
    if targets.is_empty() {
        "none".to_owned()
    } else {
        format!("{} {}", plan.kind, targets.join(", "))
    }
}

fn told(plan: &Plan) -> String {
    let steps: Vec<_> = plan.undo().steps.iter().map(ToString::to_string).collect();
    if steps.is_empty() {
        "nothing to undo".to_owned()
    } else {
        steps.join(", ")
    }
}

/// Runs a part of the drill; a panic becomes words, so that healing comes next and not the end.
async fn guarded<T>(part: impl Future<Output = T>) -> Result<T, String> {
    // What a panicking part leaves half done is only read for the report.
    AssertUnwindSafe(part)
        .catch_unwind()
        .await
        .map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            format!("panic: {}", text.unwrap_or("without words"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_words() {
        let fails = async {
            if std::env::args().count() > 0 {
                panic!("number {}", 7);
            }
        };
        assert_eq!(guarded(fails).await, Err("panic: number 7".to_owned()));
        assert_eq!(guarded(async { 7 }).await, Ok(7));
    }
}
