//! The Incus keys of a drill: the whole undo on every target, a claim on every other member. Whoever
//! looks at an instance sees that it is broken on purpose, and how to mend it, from any machine.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Refusal;
use super::record::{Record, SCHEMA};
use crate::clock::{self, Clock};
use crate::incus::{Error, Incus, Instance};
use crate::instance::InstanceName;

/// The key that a drill sets on every member of the system that it breaks.
pub const FAULT_KEY: &str = "user.veza.fault";

/// The name and version of a claim.
const CLAIM: &str = "veza-claim/1";

/// How long removing the keys may take: a restart of Incus lies within.
const LIMIT: Duration = Duration::from_secs(60);
const RETRY_EVERY: Duration = Duration::from_millis(250);

/// What a member that is not broken carries, so that no other drill breaks it meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claim {
    /// [`CLAIM`].
    pub(super) schema: String,
    /// The run.
    pub(super) run: String,
    /// The program.
    pub(super) check: String,
    /// The system under test.
    pub(super) system: String,
    /// Where it runs.
    pub(super) host: String,
    /// What it breaks.
    pub(super) targets: Vec<InstanceName>,
    /// When it should be over by, RFC 3339, UTC.
    pub(super) expires: String,
}

/// A key's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Of a target.
    Fault(Box<Record>),
    /// Of another member.
    Claim(Claim),
    /// Neither.
    Unreadable(String),
}

impl Content {
    pub(super) fn read(text: &str) -> Content {
        let value: Value = match serde_json::from_str(text) {
            Ok(value) => value,
            Err(error) => return Content::Unreadable(error.to_string()),
        };
        let read = match value.get("schema").and_then(Value::as_str) {
            Some(SCHEMA) => serde_json::from_value(value).map(Content::Fault),
            Some(CLAIM) => serde_json::from_value(value).map(Content::Claim),
            other => return Content::Unreadable(format!("its schema is {other:?}")),
        };
        read.unwrap_or_else(|error| Content::Unreadable(error.to_string()))
    }

    pub(super) fn run(&self) -> Option<&str> {
        match self {
            Content::Fault(record) => Some(&record.run),
            Content::Claim(claim) => Some(&claim.run),
            Content::Unreadable(_) => None,
        }
    }

    fn system(&self) -> Option<&str> {
        match self {
            Content::Fault(record) => Some(&record.system),
            Content::Claim(claim) => Some(&claim.system),
            Content::Unreadable(_) => None,
        }
    }

    fn told(&self) -> String {
        match self {
            Content::Fault(record) => format!(
                "the drill {} ({}, {}, by process {} on {}), whose fault should be over by {}",
                record.run,
                record.check,
                record.plan_told(),
                record.owner.pid,
                record.owner.host,
                record.expires
            ),
            Content::Claim(claim) => format!(
                "the drill {} ({}, on {}), which should be over by {}",
                claim.run, claim.check, claim.host, claim.expires
            ),
            Content::Unreadable(words) => format!("a drill that can't be read ({words})"),
        }
    }
}

/// The key of an instance, where it has one.
pub(super) fn of(instance: &Instance) -> Option<Content> {
    let text = instance.config.get(FAULT_KEY).filter(|v| !v.is_empty())?;
    Some(Content::read(text))
}

/// The first instance that carries a key of this system, or one that can't be read, and its words.
pub(super) fn of_system(instances: &[Instance], system: &str) -> Option<(InstanceName, String)> {
    instances.iter().find_map(|instance| {
        let content = of(instance)?;
        let ours = content.system().is_none_or(|other| other == system);
        ours.then(|| (instance.name.clone(), content.told()))
    })
}

/// Sets the keys: targets first, so that where a claim stands there is, or was, a whole undo.
pub(super) async fn set(incus: &Incus, record: &Record) -> Result<(), Refusal> {
    let json = |error: serde_json::Error| {
        Refusal::new("incus-refused", error.to_string(), "report it as a bug")
    };
    let fault = serde_json::to_string(record).map_err(json)?;
    let claim = Claim {
        schema: CLAIM.to_owned(),
        run: record.run.clone(),
        check: record.check.clone(),
        system: record.system.clone(),
        host: record.owner.host.clone(),
        targets: record.targets.clone(),
        expires: record.expires.clone(),
    };
    let claim = serde_json::to_string(&claim).map_err(json)?;
    let targets = record.targets.iter().map(|name| (name, &fault));
    let others = record.others().map(|name| (name, &claim));
    for (name, text) in targets.chain(others) {
        let set = incus
            .set_config_key(name, FAULT_KEY, None, Some(text))
            .await;
        if let Err(error) = set {
            return Err(refused(incus, record, name, &error).await);
        }
    }
    Ok(())
}

async fn refused(incus: &Incus, record: &Record, name: &InstanceName, error: &Error) -> Refusal {
    let there = incus.instance(name).await;
    let there = there.ok().and_then(|instance| of(&instance));
    match there.filter(|content| content.run() != Some(&record.run)) {
        Some(content) => {
            let reason = format!("{name} carries {FAULT_KEY} of {}", content.told());
            Refusal::new("fault-key-there", reason, record.recover_command())
        }
        None => {
            let reason = format!("setting {FAULT_KEY} on {name}: {error}");
            Refusal::new("incus-refused", reason, "incus info")
        }
    }
}

/// Takes the keys of a run away: claims first. Tried again until it is done or the limit has passed.
///
/// # Errors
/// What stands in the way.
pub(super) async fn remove(
    incus: &Incus,
    clock: &Clock,
    record: &Record,
) -> Result<String, String> {
    let deadline = clock.at().plus(LIMIT);
    for name in record.others().chain(&record.targets) {
        loop {
            let trouble = match gone(incus, name, &record.run).await {
                Ok(true) | Err(Error::NotFound { .. }) => break,
                Ok(false) => "an operation on it is still under way".to_owned(),
                Err(error) => error.to_string(),
            };
            if clock.at() >= deadline {
                return Err(format!("{FAULT_KEY} stays on {name}: {trouble}"));
            }
            clock::sleep(RETRY_EVERY).await;
        }
    }
    Ok(format!("{FAULT_KEY} is on no member"))
}

/// Whether a run's key is gone for good: a check that was killed may have asked for one that is not
/// there yet.
async fn gone(incus: &Incus, name: &InstanceName, run: &str) -> Result<bool, Error> {
    remove_one(incus, name, run).await?;
    if incus.is_busy(name).await? {
        return Ok(false);
    }
    let instance = incus.instance(name).await?;
    Ok(of(&instance).is_none_or(|content| content.run() != Some(run)))
}

/// Takes a run's key off an instance; another run's stays.
pub(super) async fn remove_one(incus: &Incus, name: &InstanceName, run: &str) -> Result<(), Error> {
    let instance = incus.instance(name).await?;
    if of(&instance).is_none_or(|content| content.run() != Some(run)) {
        return Ok(());
    }
    let text = instance.config.get(FAULT_KEY).map(String::as_str);
    incus.set_config_key(name, FAULT_KEY, text, None).await
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::record;
    use super::*;

    #[test]
    fn a_key_is_read_as_what_it_is() {
        let record = record("run-1");
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(Content::read(&text), Content::Fault(Box::new(record)));
        for garbage in [
            "",
            "{",
            "{}",
            "null",
            "{\"schema\": \"veza-undo/1\"}",
            "{\"schema\": \"x\"}",
        ] {
            let content = Content::read(garbage);
            assert!(matches!(content, Content::Unreadable(_)), "{garbage}");
            assert_eq!(content.run(), None);
        }
    }

    #[test]
    fn a_record_fits_a_key_and_tells_who_to_ask() {
        let content = Content::Fault(Box::new(record("run-1")));
        let told = content.told();
        for word in [
            "run-1",
            "stop pg-a",
            "pg-failover-check",
            "process 1 on h",
            "2026",
        ] {
            assert!(told.contains(word), "{told}");
        }
    }
}
