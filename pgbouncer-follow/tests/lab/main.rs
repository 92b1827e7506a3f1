//! The follower of the lab's own pooler, against the real formation. Run by `cargo xtask test`, which sets
//! the environment and resets the lab before each test.
#![expect(clippy::print_stdout, reason = "shown when a test fails")]
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]
#![expect(
    clippy::indexing_slicing,
    reason = "an instance of another shape fails the test"
)]

mod support;
mod light;
