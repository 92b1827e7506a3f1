//! `freeze`: all processes of the instance are stopped where they are.
//!
//! In real life: a host that hangs on its storage, a virtual machine that is paused or migrated, a
//! machine deep in swap. Its kernel still completes TCP handshakes and acknowledges data, so only a
//! deadline of the client's own helps. It comes back without a boot and, for a moment, believes that
//! nothing happened: what was sent to it meanwhile is still waiting.

use std::time::Duration;

use super::{Progress, Target, Tried, UndoStep, stop};
use crate::incus::{Error, Incus, StateChange, Status};

const LIMIT: Duration = Duration::from_secs(30);

pub(super) fn steps(target: &Target) -> Vec<UndoStep> {
    vec![UndoStep::Unfreeze {
        target: target.clone(),
    }]
}

pub(super) async fn inject(incus: &Incus, target: &Target) -> Result<(), Error> {
    incus
        .set_state(&target.instance, StateChange::Freeze, LIMIT)
        .await
}

pub(super) async fn seen(incus: &Incus, target: &Target) -> Option<String> {
    let found = incus.instance(&target.instance).await.ok()?;
    (found.status == Status::Frozen).then(|| format!("{} is frozen", target.instance))
}

/// Running again. One that was stopped meanwhile (its host crashed, or somebody gave it up) is
/// started: it was running before.
pub(super) async fn undo(incus: &Incus, target: &Target) -> Tried {
    let name = &target.instance;
    let found = incus.instance(name).await?;
    match found.status {
        Status::Running if found.init_pid != target.init_pid => {
            Ok(Progress::Done(format!("{name} was started anew meanwhile")))
        }
        Status::Running if incus.is_busy(name).await? => Ok(Progress::NotYet(format!(
            "an operation on {name} is still under way"
        ))),
        Status::Running => Ok(Progress::Done(format!("{name} goes on"))),
        Status::Frozen => {
            incus.set_state(name, StateChange::Unfreeze, LIMIT).await?;
            Ok(Progress::NotYet(format!("{name} was told to go on")))
        }
        Status::Stopped => stop::start(incus, target).await,
        Status::Other => Ok(Progress::NotYet(format!("{name} is in between"))),
    }
}
