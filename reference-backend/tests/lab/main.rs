//! The application side of Redis, against the lab's own. Run by `cargo xtask test`, which sets the environment
//! and resets the lab before each test.
#![expect(clippy::print_stdout, reason = "shown when a test fails")]
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]
#![expect(
    clippy::indexing_slicing,
    reason = "an answer of another shape fails the test"
)]
#![expect(clippy::panic, reason = "a test that can't go on has failed")]

mod support;
mod light;
