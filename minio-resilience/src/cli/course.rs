//! The acts of a run, one after the other, and what one hands on to the next. Plain data.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What `--step` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Step {
    /// Nodes are taken away at once: what is read, and what is refused.
    Lose,
    /// Written while a node is away; healed; proven without the nodes that were there.
    Heal,
    /// A drive is emptied, in a lab; healed; proven.
    WipeDrive,
    /// Bytes are flipped, in a lab; read right; found and mended.
    Bitrot,
}

/// One fault with its heal, or what is done in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Several nodes are taken away.
    Lose,
    /// One node is taken away, and objects are written meanwhile.
    Degraded,
    /// A drive is emptied.
    WipeDrive,
    /// Bytes of shards are flipped; no instance is broken.
    Bitrot,
    /// Two nodes that were there for every write are taken away.
    Proof,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Act::Lose => "lose",
            Act::Degraded => "degraded",
            Act::WipeDrive => "wipe-drive",
            Act::Bitrot => "bitrot",
            Act::Proof => "proof",
        })
    }
}

impl Step {
    /// Its acts, in their order.
    pub fn acts(self) -> &'static [Act] {
        match self {
            Step::Lose => &[Act::Lose],
            Step::Heal => &[Act::Degraded, Act::Proof],
            Step::WipeDrive => &[Act::WipeDrive, Act::Proof],
            Step::Bitrot => &[Act::Bitrot],
        }
    }
}

/// Where a run stands.
#[derive(Clone, Debug)]
pub struct Course {
    /// What is done now.
    pub act: Act,
    /// What comes after it.
    pub then: VecDeque<Act>,
    /// What earlier acts hand on; none in the first one.
    pub carried: Option<Carried>,
}

impl Default for Course {
    fn default() -> Course {
        Course::of(&[Step::Lose])
    }
}

impl Course {
    /// The acts of these steps.
    pub fn of(steps: &[Step]) -> Course {
        let all = steps.iter().flat_map(|step| step.acts());
        let mut then: VecDeque<Act> = all.copied().collect();
        Course {
            act: then.pop_front().unwrap_or(Act::Lose),
            then,
            carried: None,
        }
    }

    /// What comes after this act; none after the last one.
    pub fn next(&self, carried: Carried) -> Option<Course> {
        let mut then = self.then.clone();
        let act = then.pop_front()?;
        let carried = Some(carried);
        Some(Course { act, then, carried })
    }
}

/// What an act hands on to the next one.
#[derive(Clone, Debug, Default)]
pub struct Carried {
    /// Every object that was written, as it must be.
    pub objects: Vec<Object>,
    /// Versions that are not the newest of their key any more, as they must be.
    pub old: Vec<Object>,
    /// Every version that this run wrote, by key and id.
    pub versions: BTreeSet<(String, String)>,
    /// The nodes that were away, or lost a drive, since the last proof: only healing gave them their shards.
    pub absent: Vec<String>,
}

/// An object of the working set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Its key, the prefix included.
    pub key: String,
    /// How many bytes it has.
    pub size_bytes: u64,
    /// The SHA-256 of its bytes, in hexadecimal; none when it was deleted and must not be there.
    pub sha256: Option<String>,
    /// Its ETag, as the server told it at the write.
    pub etag: String,
    /// Its version, where the bucket keeps versions.
    pub version: Option<String>,
    /// Of how many parts it was uploaded; 1 where it was put in one piece.
    pub parts: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_course_is_its_steps_in_their_order() {
        let first = Course::of(&[Step::Lose, Step::Heal, Step::Bitrot]);
        let mut acts = vec![first.act];
        let mut now = first.clone();
        while let Some(next) = now.next(Carried::default()) {
            acts.push(next.act);
            now = next;
        }
        let expected = [Act::Lose, Act::Degraded, Act::Proof, Act::Bitrot];
        assert_eq!(acts, expected);
        assert!(first.carried.is_none() && now.carried.is_some());
    }
}
