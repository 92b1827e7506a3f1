//! What every drill shares: Incus control, timing, faults that heal, and the words of a verdict.
//!
//! The modules stand in the order in which data flows; each uses only those above it.

pub mod clock;
pub mod window;
pub mod story;
pub mod secret;
pub mod command;
pub mod environment;
pub mod instance;
pub mod incus;
pub mod address;
pub mod way;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "minio")]
pub mod minio;
pub mod pulse;
pub mod fault;
pub mod undo;
pub mod prober;
pub mod arguments;
pub mod outpost;
pub mod outage;
pub mod ledger;
pub mod tenure;
pub mod verdict;
pub mod feasible;
pub mod report;
pub mod drill;
