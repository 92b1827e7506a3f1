//! `stop`: the instance is stopped by force, all its processes at once.
//!
//! In real life: power is cut, the host dies, the container is killed for its memory. Clients see
//! silence, not refusal: the address is gone with the network interface. Nothing is flushed and
//! nothing says goodbye, so the others notice by their own timers only; coming back means a boot.

use std::time::Duration;

use super::{Progress, Target, Tried, Undo, UndoStep};
use crate::incus::{Error, Incus, Instance, StateChange, Status};

/// A force stop takes under a second; a start some more.
const LIMIT: Duration = Duration::from_secs(60);

/// With this key, Incus starts an instance again that ends without being asked to (its own
/// documentation, instance options): the drill would measure a restart.
const AUTORESTART: &str = "boot.autorestart";

pub(super) fn steps(target: &Target, found: &Instance, notes: &mut Vec<String>) -> Vec<UndoStep> {
    let mut steps = vec![UndoStep::Start {
        target: target.clone(),
    }];
    let on = |text: &String| matches!(text.as_str(), "true" | "1" | "yes" | "on");
    if found.expanded_config.get(AUTORESTART).is_some_and(on) {
        notes.push(format!(
            "{AUTORESTART} of {} is off while the fault is in, so that Incus does not start it again",
            target.instance
        ));
        steps.push(UndoStep::SetKey {
            target: target.clone(),
            key: AUTORESTART.to_owned(),
            found: found.config.get(AUTORESTART).cloned(),
            during: "false".to_owned(),
        });
    }
    steps
}

pub(super) async fn inject(incus: &Incus, target: &Target, undo: &Undo) -> Result<(), Error> {
    for step in &undo.steps {
        if let UndoStep::SetKey {
            target: of,
            key,
            found,
            during,
        } = step
            && of == target
        {
            incus
                .set_config_key(&target.instance, key, found.as_deref(), Some(during))
                .await?;
        }
    }
    incus
        .set_state(&target.instance, StateChange::ForceStop, LIMIT)
        .await
}

pub(super) async fn seen(incus: &Incus, target: &Target) -> Option<String> {
    let found = incus.instance(&target.instance).await.ok()?;
    (found.status == Status::Stopped && found.init_pid <= 0)
        .then(|| format!("{} has no init process", target.instance))
}

/// Started again, and by a new init process. A target that still has the old one was never stopped,
/// but only when no operation on it is under way may that be believed.
pub(super) async fn undo(incus: &Incus, target: &Target) -> Tried {
    let name = &target.instance;
    let found = incus.instance(name).await?;
    match found.status {
        Status::Running if found.init_pid != target.init_pid => Ok(Progress::Done(format!(
            "{name} runs again, init process {}",
            found.init_pid
        ))),
        Status::Running if incus.is_busy(name).await? => Ok(Progress::NotYet(format!(
            "an operation on {name} is still under way"
        ))),
        Status::Running => Ok(Progress::Done(format!("{name} was never stopped"))),
        Status::Stopped => start(incus, target).await,
        Status::Frozen | Status::Other => {
            Ok(Progress::NotYet(format!("{name} is {}", found.status)))
        }
    }
}

pub(super) async fn start(incus: &Incus, target: &Target) -> Tried {
    let name = &target.instance;
    incus.set_state(name, StateChange::Start, LIMIT).await?;
    Ok(Progress::NotYet(format!("{name} was told to start")))
}

/// A config key as it was found. One that has neither the found value nor ours was set by somebody
/// else meanwhile, and stays.
pub(super) async fn undo_key(
    incus: &Incus,
    target: &Target,
    key: &str,
    found: Option<&str>,
    during: &str,
) -> Tried {
    let name = &target.instance;
    let instance = incus.instance(name).await?;
    let now = instance.config.get(key).map(String::as_str);
    if now == found {
        return Ok(if incus.is_busy(name).await? {
            Progress::NotYet(format!("an operation on {name} is still under way"))
        } else {
            Progress::Done(format!("{key} is as it was found"))
        });
    }
    if now != Some(during) {
        return Ok(Progress::NotYet(format!(
            "{key} of {name} is {now:?}, which somebody else has set: found was {found:?}"
        )));
    }
    incus.set_config_key(name, key, now, found).await?;
    Ok(Progress::Done(format!("{key} is {found:?} again")))
}
