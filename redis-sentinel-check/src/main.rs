//! redis-sentinel-check: breaks the master of a Redis group under Sentinel, measures how long a client could not
//! write, puts it back, and waits until the group is whole.

mod cli;
mod targets;
mod baseline;
mod fault;
mod observation;
mod verdict;
mod report;

use std::process::ExitCode;
use std::time::Duration;

use veza_probe::arguments::DrillArgs;
use veza_probe::clock::{Clock, Stop};
use veza_probe::drill::{Asked, Broken, Check, Found, Later, Site, SoFar};
use veza_probe::fault::Kind;
use veza_probe::instance::InstanceName;
use veza_probe::report::{Report, Untouched};
use veza_probe::story::Story;
use veza_probe::undo::Chore;
use veza_probe::verdict::{Gate, Judgement};

use baseline::Baseline;
use cli::Args;
use observation::{Observation, Watch};
use targets::Targets;

fn main() -> ExitCode {
    veza_probe::drill::main::<Args>()
}

impl Check for Args {
    const NAME: &'static str = "redis-sentinel-check";
    const SECRETS: &'static [&'static str] = &["REDIS_PASSWORD", "REDIS_SENTINEL_PASSWORD"];
    type Targets = Targets;
    type Baseline = Baseline;
    type Watch = Watch;
    type Observation = Observation;

    fn drill(&self) -> &DrillArgs {
        &self.drill
    }

    fn complete(&mut self, typed: &dyn Fn(&str) -> bool) -> Result<(), String> {
        self.read(typed)
    }

    fn fault(&self) -> Kind {
        self.first_fault()
    }

    fn rto_target(&self) -> Duration {
        self.rto_target
    }

    fn redundancy_target(&self) -> Duration {
        self.redundancy_target
    }

    fn system(&self) -> String {
        format!("redis {} in project {}", self.master, self.drill.project)
    }

    async fn resolve(&self, _clock: &Clock, site: &Site) -> Result<Targets, Untouched> {
        targets::resolve(self, site).await
    }

    async fn measure(
        &self,
        clock: &Clock,
        site: &Site,
        targets: &Targets,
        story: &Story,
    ) -> Result<Baseline, Untouched> {
        baseline::measure(self, clock, site, targets, story).await
    }

    fn broken(&self, found: &Found<Args>) -> Vec<Broken> {
        fault::broken(self, &found.baseline)
    }

    fn controls(&self, found: &Found<Args>) -> Vec<Asked> {
        fault::controls(self, &found.baseline)
    }

    fn later(&self, found: &Found<Args>) -> Vec<Later> {
        fault::later(self, &found.baseline)
    }

    fn members(&self, found: &Found<Args>) -> Vec<InstanceName> {
        fault::members(&found.baseline)
    }

    fn chores(&self, found: &Found<Args>, run: &str) -> Vec<Chore> {
        observation::chores(self, &found.targets, run)
    }

    async fn chore(&self, chore: &Chore) -> Result<String, String> {
        observation::chore(self, chore).await
    }

    async fn start(
        &self,
        clock: &Clock,
        found: &Found<Args>,
        run: &str,
        story: &Story,
        stop: &mut Stop,
    ) -> Result<Watch, Untouched> {
        observation::start(clock, (found, run), self, story, stop).await
    }

    fn judge(&self, so_far: &SoFar<'_, Args>) -> (Vec<Gate>, Judgement) {
        let seen = verdict::seen(self, so_far);
        let gates = verdict::gates(&seen, &verdict::promises(self));
        let judgement = verdict::judge(&seen, &gates);
        (gates, judgement)
    }

    fn tell(&self, so_far: &SoFar<'_, Args>, report: &mut Report) {
        report::tell(self, so_far, report);
    }
}
