//! `hold:UNIT`: a unit is stopped cleanly and held down.
//!
//! In real life: somebody stops a service for maintenance and forgets it, or a package upgrade stops
//! it and fails. What is stopped says goodbye: it flushes, ends its sessions, and may hand its role
//! over, so recovery is often faster than after a crash, and says nothing about one. While it is held
//! a start fails with a message that names the drill.

use super::{Target, UndoStep, Unfit, Unit, kill, systemd};
use crate::incus::{Error, Incus};

/// An assertion, not a condition: whoever starts the unit by hand is told why it stays down.
const DROP_IN: &str = "# A drill's: the unit is stopped and held down; healing removes this.\n\
                       [Unit]\nAssertPathExists=/run/veza-drill-holds-this-unit-down\n\
                       [Service]\nRestart=no\n";

pub(super) async fn steps(
    incus: &Incus,
    target: &Target,
    unit: &Unit,
    notes: &mut Vec<String>,
) -> Result<Vec<UndoStep>, Unfit> {
    kill::steps(incus, target, unit, notes).await
}

pub(super) async fn inject(incus: &Incus, target: &Target, unit: &Unit) -> Result<(), Error> {
    systemd::with_drop_in(incus, target, unit, DROP_IN, "systemctl stop -- \"$3\"").await
}
