//! Writes while there is no quorum for them: each must be refused soon, in S3's own words, and leave nothing behind.

use std::time::Duration;

use veza_probe::clock::At;

use super::objects::content;
use super::stage::Stage;
use crate::targets::store::{Failure, LIMIT};

/// How long a write may take to be refused.
pub const REFUSAL_LIMIT: Duration = Duration::from_secs(5);

/// Sizes that are tried: one beside the metadata, one in a file of its own, one of several blocks.
const SIZES: [u64; 3] = [1_000, 300 * 1024, 2 * 1024 * 1024 + 1];

/// A write that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Its key.
    pub key: String,
    /// The node that was asked.
    pub node: String,
    /// When it was sent.
    pub sent: At,
    /// When the answer was in, or the limit had passed.
    pub answered: At,
    /// What came back: none when it was taken.
    pub refused: Option<Failure>,
}

impl Tried {
    /// How long it took, in seconds.
    pub fn took_s(&self) -> f64 {
        self.answered.us_since(self.sent) as f64 / 1e6
    }

    /// Whether it was refused as S3 says that it can't write now.
    pub fn is_refused_rightly(&self) -> bool {
        self.refused.as_ref().is_some_and(Failure::is_unavailable)
    }
}

/// Tries writes through every node that stays up, each for this long.
pub async fn try_writes(stage: &Stage, limit: Duration) -> Vec<Tried> {
    let mut all = Vec::new();
    for node in stage.living() {
        for size_bytes in SIZES {
            let key = format!("{}refused/{}-{size_bytes}", stage.prefix, node.name);
            let bytes = content(&key, 0, size_bytes);
            let sent = stage.clock.at();
            let written = node.store.put(&key, bytes, limit).await;
            all.push(Tried {
                key,
                node: node.name.clone(),
                sent,
                answered: stage.clock.at(),
                refused: written.err(),
            });
        }
    }
    all
}

/// What is there of writes that were refused: their keys, read through every node, and listed with all versions.
///
/// # Errors
/// What stood in the way of looking.
pub async fn phantoms(stage: &Stage, tried: &[Tried]) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    let refused: Vec<&Tried> = tried
        .iter()
        .filter(|tried| tried.refused.is_some())
        .collect();
    for node in &stage.nodes {
        let told = |failure: Failure| format!("through {}: {failure}", node.name);
        let folder = format!("{}refused/", stage.prefix);
        let listed = node.store.versions(&folder, LIMIT).await.map_err(told)?;
        for tried in &refused {
            let read = node.store.get(&tried.key, LIMIT).await;
            let is_there = match read {
                Ok(_) => true,
                Err(failure) if failure.is_absent() => false,
                Err(failure) => return Err(told(failure)),
            };
            if is_there || listed.iter().any(|version| version.key == tried.key) {
                found.push(tried.key.clone());
            }
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}
