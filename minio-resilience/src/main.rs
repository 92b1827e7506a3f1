//! minio-resilience: takes nodes of a MinIO cluster away, watches what its readers get, puts them back, and proves that
//! every object was healed.

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
use veza_probe::drill::{Asked, Broken, Check, Found, Site, SoFar};
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
    const NAME: &'static str = "minio-resilience";
    const SECRETS: &'static [&'static str] = &["MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"];
    type Targets = Targets;
    type Baseline = Baseline;
    type Watch = Watch;
    type Observation = Observation;

    fn drill(&self) -> &DrillArgs {
        &self.drill
    }

    fn complete(&mut self, _typed: &dyn Fn(&str) -> bool) -> Result<(), String> {
        self.read()
    }

    fn act(&self) -> Option<String> {
        Some(self.course.act.to_string())
    }

    fn chores_last(&self) -> bool {
        true
    }

    fn next(&self, so_far: &SoFar<'_, Args>) -> Option<Args> {
        observation::next(self, so_far)
    }

    fn fault(&self) -> Kind {
        fault::kind(self)
    }

    fn rto_target(&self) -> Duration {
        fault::longest(self)
    }

    fn preparation(&self) -> Duration {
        fault::preparation(self)
    }

    fn redundancy_target(&self) -> Duration {
        fault::redundancy(self)
    }

    fn system(&self) -> String {
        format!(
            "minio {} in project {}",
            self.first_host(),
            self.drill.project
        )
    }

    async fn resolve(&self, clock: &Clock, site: &Site) -> Result<Targets, Untouched> {
        targets::resolve(self, clock, site).await
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
        fault::broken(found)
    }

    fn controls(&self, found: &Found<Args>) -> Vec<Asked> {
        fault::controls(found)
    }

    fn members(&self, found: &Found<Args>) -> Vec<InstanceName> {
        fault::members(&found.targets)
    }

    fn chores(&self, found: &Found<Args>, run: &str) -> Vec<Chore> {
        observation::chores::chores(self, &found.targets, run)
    }

    async fn chore(&self, chore: &Chore) -> Result<String, String> {
        observation::chores::chore(self, chore).await
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
