//! Redis behind Sentinel as an application uses it: a link that follows the master, and over it a rate
//! limiter, chat and presence, each of which goes on in memory while Redis is away.
//!
//! No request waits for a failover: it has an answer of Redis within [`REQUEST_LIMIT`], or its fallback.

pub mod config;
pub mod metrics;
mod connection;
mod sentinel;
pub mod link;
pub mod rate_limiter;
pub mod presence;
pub mod chat;
#[cfg(test)]
mod fake;

pub use config::Config;
pub use link::{Link, REQUEST_LIMIT};
pub use metrics::{CacheMetrics, Subsystem};

/// Who answered a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Redis, and so all servers know the same.
    Redis,
    /// This server's own memory, because Redis did not answer.
    Memory,
}
