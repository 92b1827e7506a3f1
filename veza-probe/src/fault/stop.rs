//! `stop`: the instance is stopped by force, all its processes at once.
//!
//! In real life: power is cut, the host dies, the container is killed for its memory. Clients see
//! silence, not refusal: the address is gone with the network interface. Nothing is flushed and
//! nothing says goodbye, so the others notice by their own timers only; coming back means a boot.

use std::time::Duration;

use super::{Progress, Target, Tried};
use crate::incus::{Error, Incus, StateChange, Status};

/// A force stop takes under a second; a start some more.
const LIMIT: Duration = Duration::from_secs(60);

pub(super) async fn inject(incus: &Incus, target: &Target) -> Result<(), Error> {
    incus
        .set_state(&target.instance, StateChange::ForceStop, LIMIT)
        .await
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
        Status::Stopped => {
            incus.set_state(name, StateChange::Start, LIMIT).await?;
            Ok(Progress::NotYet(format!("{name} was told to start")))
        }
        Status::Frozen | Status::Other => {
            Ok(Progress::NotYet(format!("{name} is {}", found.status)))
        }
    }
}
