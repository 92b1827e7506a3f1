//! What every step of making instances needs, handed around as one.

use veza_probe::incus::Incus;

use super::tale::Tale;
use super::topology::LabSpec;

/// What every step needs.
#[derive(Clone, Copy)]
pub struct Site<'a> {
    /// Incus, in the lab's project.
    pub incus: &'a Incus,
    /// The topology's shared part.
    pub lab: &'a LabSpec,
    /// Where it is told.
    pub tale: &'a Tale,
    /// The base image.
    pub image: &'a str,
}
