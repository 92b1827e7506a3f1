//! One version of an object, with all that belongs to it, from the source to the target.

use super::pace::Memory;
use crate::targets::s3::{Failure, S3};
use crate::targets::walk::Version;

/// Who carries.
#[derive(Clone)]
pub struct Carrier {
    /// What is moved away from.
    pub source: S3,
    /// What is moved to.
    pub target: S3,
    /// What may be held of objects at the same time.
    pub memory: Memory,
}

/// A version that is on the target now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// SHA-256 of what the source sent; zeroes of a mark of deletion.
    pub sha256: [u8; 32],
    /// How many bytes that were.
    pub size_bytes: u64,
    /// The target's id of it, where it has versions.
    pub target_id: Option<String>,
    /// The target's ETag of it.
    pub target_etag: String,
    /// The node that took it.
    pub node: String,
    /// What the target could not take, in words: a retention that is over.
    pub losses: Vec<String>,
}

/// Why a version was not carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It is not on the source any more, or another one than was listed: the key is to be listed again.
    Changed(String),
    /// It can't be carried, or not now.
    Failed(Failure),
}

impl Carrier {
    /// How often a store asked for fewer requests so far.
    pub fn slowdowns(&self) -> u64 {
        0
    }

    /// Carries a version as the newest of its key.
    ///
    /// # Errors
    /// [`Trouble`]; then nothing of it stands on the target as the newest version.
    pub async fn version(
        &self,
        bucket: &str,
        key: &str,
        version: &Version,
    ) -> Result<Carried, Trouble> {
        let _ = (bucket, key, version);
        Err(Trouble::Failed(Failure::silent("not made yet")))
    }

    /// Sets a mark of deletion as the newest of a key.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn mark(&self, bucket: &str, key: &str) -> Result<Carried, Trouble> {
        let _ = (bucket, key);
        Err(Trouble::Failed(Failure::silent("not made yet")))
    }
}
