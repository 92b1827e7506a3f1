//! Programs that instances run, as roles name them: of this workspace, or from public source.

use std::sync::Arc;

use serde::Deserialize;

/// A program of this workspace that an instance runs. A new one is a change that the units take over by
/// a reload.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgramSpec {
    #[serde(rename = "crate")]
    package: String,
    binary: Option<String>,
    /// Where it stands in an instance.
    pub path: String,
}

impl ProgramSpec {
    /// The binary: that of the crate's own name unless another one is named.
    pub fn binary(&self) -> &str {
        self.binary.as_deref().unwrap_or(&self.package)
    }
}

/// A program that is built from its public source with Go. A new one is a change that the units take over
/// by a restart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoProgramSpec {
    /// Its module; the last part is the program's name.
    pub module: String,
    /// The module's version, as module proxies know it.
    pub version: String,
    /// The oldest Go that compiles it, such as `1.24`.
    pub go: String,
    /// What the linker is told.
    pub ldflags: String,
    /// What stands in the first line of its `--version`, so that another one is not taken for it.
    pub says: String,
    /// Where it stands in an instance.
    pub path: String,
}

impl GoProgramSpec {
    /// The program's name.
    pub fn name(&self) -> &str {
        self.module.rsplit('/').next().unwrap_or_default()
    }
}

/// A program that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// Its bytes: many, and the same for several instances.
    pub bytes: Arc<Vec<u8>>,
    /// Their SHA-256, where it was worked out already.
    pub sum: Option<String>,
}
