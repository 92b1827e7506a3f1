//! `kill:UNIT`: all processes of a unit are killed, and systemd does not start it again.
//!
//! In real life: a crash that comes back at once whenever it is started, as with a corrupt file or a
//! full disk. The host is alive and its kernel refuses connections, so clients are told at once;
//! nothing is flushed. The others see a node that says nothing more, as after a power cut, but
//! whoever asks it is refused instead of waiting. Coming back is a start without a boot.

use super::{Target, UndoStep, Unfit, Unit, systemd};
use crate::incus::{Error, Incus};

/// Without this, `Restart=` would make it a restart test ([`super::kill_restart`]).
const DROP_IN: &str = "# A drill's: the unit is killed and must stay down; healing removes this.\n\
                       [Service]\nRestart=no\n";

pub(super) async fn steps(
    incus: &Incus,
    target: &Target,
    unit: &Unit,
    notes: &mut Vec<String>,
) -> Result<Vec<UndoStep>, Unfit> {
    let state = systemd::active(incus, target, unit).await?;
    if state.restart != "no" {
        notes.push(format!(
            "Restart={} of {unit} is off while the fault is in, so that systemd does not start it \
             again",
            state.restart
        ));
    }
    let mut steps = vec![UndoStep::RemoveDropIn {
        target: target.clone(),
        unit: unit.clone(),
    }];
    steps.extend(systemd::start_steps(incus, target, unit, &state).await);
    Ok(steps)
}

pub(super) async fn inject(incus: &Incus, target: &Target, unit: &Unit) -> Result<(), Error> {
    systemd::with_drop_in(incus, target, unit, DROP_IN, systemd::KILL).await
}
