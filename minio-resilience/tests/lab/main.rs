//! The real binary against the real lab. Run by `cargo xtask test`, which sets the environment and resets the
//! lab before each test.
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
    reason = "the real binary is run and killed"
)]

mod support;
mod heavy;
