//! `kill-restart:UNIT`: all processes of a unit are killed, and systemd does what it is set to.
//!
//! In real life: a crash, the out-of-memory killer. With `Restart=` in the unit the service is often
//! back before anybody else has noticed, with its own recovery to go through; so what is measured is
//! the time of a restart and says nothing about a failover. Without it this is [`super::kill`].

use super::{Target, Undo, UndoStep, Unfit, Unit, systemd};
use crate::incus::{Error, Incus};

pub(super) async fn steps(
    incus: &Incus,
    target: &Target,
    unit: &Unit,
    notes: &mut Vec<String>,
) -> Result<Vec<UndoStep>, Unfit> {
    let state = systemd::active(incus, target, unit).await?;
    notes.push(match state.restart.as_str() {
        "no" => format!("{unit} has Restart=no: nothing starts it again but healing"),
        restart => format!("{unit} has Restart={restart}: systemd starts it again by itself"),
    });
    Ok(systemd::start_steps(incus, target, unit, &state).await)
}

pub(super) async fn inject(incus: &Incus, target: &Target, unit: &Unit) -> Result<(), Error> {
    let argv = ["sh", "-c", systemd::KILL, "sh", "", "", unit.as_str()];
    systemd::run(incus, target, &argv).await
}

/// It runs under another invocation, or not at all.
pub(super) async fn seen(
    incus: &Incus,
    target: &Target,
    unit: &Unit,
    undo: &Undo,
) -> Option<String> {
    let before = systemd::invocation_before(undo, unit)?;
    let now = systemd::invocation(incus, target, unit).await?;
    (now != before).then(|| format!("systemd in {} has a new run of {unit}", target.instance))
}
