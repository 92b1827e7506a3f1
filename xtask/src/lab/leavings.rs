//! How a test leaves the lab, as Incus and the lab's own ready commands see it.

use std::collections::BTreeMap;
use std::time::Duration;

use veza_probe::clock;
use veza_probe::story::Story;

use super::plan::Wanted;
use super::site::Site;
use super::tale::Tale;
use super::{Description, bare, connect, ready};

/// How long groups have to be whole again after a test, before they are reset instead.
const WHOLE_LIMIT: Duration = Duration::from_secs(20);

/// A health check that began in a fault which is over may still end badly: 0.5 s, 0.2 s until the monitor tries again, 0.5 s.
const LAST_CHECKS: Duration = Duration::from_millis(1300);

/// Waits until these groups are whole by the lab's own word, and stay so while checks end that began before.
///
/// # Errors
/// When they are not whole in 20 s, or Incus does not answer.
pub async fn whole(groups: &[String]) -> anyhow::Result<()> {
    let plan = Description::read(None)?;
    let incus = connect(&plan).await?;
    let story = Story::new(true);
    let site = Site {
        incus: &incus,
        lab: &plan.topology.lab,
        tale: &Tale::new(&story),
        image: "",
    };
    let all: Vec<Wanted> = bare(&plan, groups)?.into_iter().flatten().collect();
    let whole = async {
        ready::wait_all(&site, &all).await?;
        clock::sleep(LAST_CHECKS).await;
        ready::wait_all(&site, &all).await
    };
    clock::within(WHOLE_LIMIT, whole).await?
}

/// What Incus says of an instance that changes only when somebody touches it.
#[derive(Debug, PartialEq, Eq)]
pub struct Traits {
    /// Its init process: another one after each start.
    pub start: i64,
    /// Its state, its keys and its devices.
    pub settings: String,
}

/// The traits of each instance of these groups.
///
/// # Errors
/// When Incus does not answer.
pub async fn traits(groups: &[String]) -> anyhow::Result<BTreeMap<String, Traits>> {
    let plan = Description::read(None)?;
    let incus = connect(&plan).await?;
    let mut traits = BTreeMap::new();
    for wanted in bare(&plan, groups)?.into_iter().flatten() {
        let mut found = incus.instance(&wanted.spec.name).await?;
        found.config.retain(|key, _| !key.starts_with("volatile."));
        let (state, config, devices) = (found.status, found.config, found.devices);
        let found = Traits {
            start: found.init_pid,
            settings: format!("{state:?} {config:?} {devices:?}"),
        };
        traits.insert(wanted.spec.name.to_string(), found);
    }
    Ok(traits)
}
