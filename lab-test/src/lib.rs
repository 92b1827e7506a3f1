//! What the tests of all checks share: the real binary and what it came to, the lab as it was found, and the
//! check killed at any request that it makes of Incus. A development dependency of the checks, and of nothing
//! that is shipped; like a test, it panics where a test has failed.
#![expect(
    clippy::indexing_slicing,
    reason = "a report of another shape fails the test"
)]
#![expect(clippy::print_stdout, reason = "shown when a test fails")]
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]
#![expect(clippy::expect_used, reason = "a test that can't go on has failed")]
#![expect(clippy::panic, reason = "a test that can't go on has failed")]
#![expect(
    clippy::disallowed_methods,
    reason = "the real binary is run and sent signals"
)]

mod alone;
mod ran;
mod running;
mod subject;
mod proxy;
mod kill_points;

pub use alone::Alone;
pub use kill_points::{Points, kill_points};
pub use proxy::{Moment, Proxy};
pub use ran::Ran;
pub use running::Running;
pub use subject::{AsFound, BRIEFLY, MINUTE, Subject, incus, name, variable};
