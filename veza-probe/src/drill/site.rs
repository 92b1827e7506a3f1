//! Where a drill takes place: an Incus, a project, its instances, and the folder of records.

use std::collections::BTreeMap;

use crate::arguments::DrillArgs;
use crate::clock::Clock;
use crate::incus::{self, Incus, Instance, Place, Server, Status};
use crate::instance::InstanceName;
use crate::outpost::Outpost;
use crate::report::Untouched;
use crate::undo::{Refusal, State};
use crate::verdict::{Judgement, Verdict};

/// Where a drill takes place.
pub struct Site {
    /// The Incus of the system.
    pub incus: Incus,
    /// What it says of itself.
    pub server: Server,
    /// The instances of the project.
    pub instances: Vec<Instance>,
    /// The project's own config: what is allowed in it.
    pub project_config: BTreeMap<String, String>,
    /// Where records of faults are kept.
    pub state: State,
}

impl Site {
    /// Finds it.
    ///
    /// # Errors
    /// Missing tool when Incus, its socket or the project is not there; refused when Incus says no.
    pub async fn find(args: &DrillArgs) -> Result<Site, Untouched> {
        let (incus, server) = connect(args).await?;
        let instances = incus.instances().await.map_err(|error| of_incus(&error))?;
        let project_config = incus.project_config().await;
        let project_config = project_config.map_err(|error| of_incus(&error))?;
        Ok(Site {
            incus,
            server,
            instances,
            project_config,
            state: State::new(|name| std::env::var_os(name)),
        })
    }

    /// Opens the observer in the instance that `--observe-from` names.
    ///
    /// # Errors
    /// Missing tool when it is not there or not running, or can't observe.
    pub async fn outpost(&self, clock: &Clock, name: &InstanceName) -> Result<Outpost, Untouched> {
        let missing = |reason: String| {
            let next = format!("incus --project {} list", self.incus.project());
            Judgement::new(Verdict::MissingTool, "no-observer", reason, next).into()
        };
        match self.instances.iter().find(|found| found.name == *name) {
            Some(instance) if instance.status == Status::Running => {}
            found => {
                let is = found.map_or("there is none in this project".to_owned(), |found| {
                    format!("it is {}", found.status)
                });
                let reason = format!("--observe-from {name} needs a running instance, and {is}");
                return Err(missing(reason));
            }
        }
        let opened = Outpost::open(&self.incus, clock, name).await;
        opened.map_err(|error| missing(format!("--observe-from {name}: {error}")))
    }

    /// The Incus, and over which way it is reached, for a report.
    pub(super) fn told(&self) -> String {
        let server = &self.server;
        let way = match self.incus.place().is_local() {
            true => String::new(),
            false => format!(", over {}", self.incus.told()),
        };
        format!(
            "{} on {}, kernel {}{way}",
            server.version, server.name, server.kernel
        )
    }
}

/// The Incus of this host, or the remote that was named; never one in place of the other.
///
/// # Errors
/// Missing tool when Incus, its socket or the project is not there.
pub async fn connect(args: &DrillArgs) -> Result<(Incus, Server), Untouched> {
    let lookup = |name: &str| std::env::var_os(name);
    let place = match &args.remote {
        None => Ok(Place::local(lookup)),
        Some(name) => Place::remote(name, lookup).map_err(|error| of_incus(&error.into())),
    };
    let connected = Incus::connect(&place?, &args.project).await;
    connected.map_err(|error| of_incus(&error))
}

/// What a refusal of the undo comes to.
pub(super) fn of_undo(refusal: &Refusal) -> Untouched {
    let Refusal {
        reason_id,
        reason,
        next,
    } = refusal;
    let verdict = if refusal.is_missing_tool() {
        Verdict::MissingTool
    } else {
        Verdict::Refused
    };
    Judgement::new(verdict, reason_id, reason, next).into()
}

/// What an error of Incus before the fault comes to.
pub fn of_incus(error: &incus::Error) -> Untouched {
    let (verdict, reason_id) = if error.is_missing_tool() {
        (Verdict::MissingTool, "incus-not-usable")
    } else {
        (Verdict::Refused, "incus-refused")
    };
    let next = match error {
        incus::Error::Remote(_) => "incus remote list",
        _ => "incus info",
    };
    Judgement::new(verdict, reason_id, error.to_string(), next).into()
}
