//! pg-failover-check: breaks the primary of a pg_auto_failover formation, measures how long a client
//! could not write, puts it back, and waits until the formation is whole.

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
use veza_probe::outpost;
use veza_probe::report::{Report, Untouched};
use veza_probe::story::Story;
use veza_probe::undo::Chore;
use veza_probe::verdict::{Gate, Judgement};

use baseline::Baseline;
use cli::Args;
use observation::heartbeat::NodeClient;
use observation::{Observation, Watch, heartbeat};
use targets::Targets;

fn main() -> ExitCode {
    veza_probe::drill::main::<Args>()
}

impl Check for Args {
    const NAME: &'static str = "pg-failover-check";
    const SECRETS: &'static [&'static str] = &[
        "PGAF_MONITOR_PASSWORD",
        "PGAF_FORMATION_PASSWORD",
        "DATABASE_PASSWORD",
    ];
    type Targets = Targets;
    type Baseline = Baseline;
    type Watch = Watch;
    type Observation = Observation;

    fn drill(&self) -> &DrillArgs {
        &self.drill
    }

    fn complete(&mut self, typed: &dyn Fn(&str) -> bool) -> Result<(), String> {
        self.read_uris(typed)
    }

    fn fault(&self) -> Kind {
        self.fault.clone()
    }

    fn rto_target(&self) -> Duration {
        self.rto_target
    }

    fn redundancy_target(&self) -> Duration {
        self.redundancy_target
    }

    fn system(&self) -> String {
        let (formation, group, project) = (&self.formation, self.group, &self.drill.project);
        format!("formation {formation}/{group} in project {project}")
    }

    async fn resolve(&self, clock: &Clock, site: &Site) -> Result<Targets, Untouched> {
        targets::resolve(clock, site, self).await
    }

    async fn measure(
        &self,
        clock: &Clock,
        site: &Site,
        targets: &Targets,
        story: &Story,
    ) -> Result<Baseline, Untouched> {
        baseline::measure(clock, (site, targets), self, story).await
    }

    fn broken(&self, found: &Found<Args>) -> Vec<Broken> {
        vec![fault::broken(found, self.observe_from.as_ref())]
    }

    fn controls(&self, found: &Found<Args>) -> Vec<Asked> {
        fault::controls(&found.baseline)
    }

    fn members(&self, found: &Found<Args>) -> Vec<InstanceName> {
        fault::members(found)
    }

    fn chores(&self, found: &Found<Args>, run: &str) -> Vec<Chore> {
        let observer = self.observe_from.as_ref();
        let schema = observation::schema(self, run);
        let chore = |schema: &String| heartbeat::chore(&found.baseline, observer, schema);
        schema.iter().map(chore).collect()
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

    async fn afterwards(&self, clock: &Clock, found: &Found<Args>, story: &Story) -> Vec<String> {
        observation::switched_back(clock, &found.baseline, self, story).await
    }

    fn stand_outpost() -> Option<ExitCode> {
        Some(outpost::stand(NodeClient::unpack))
    }
}
