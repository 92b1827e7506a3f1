//! The real binary against the real lab. Run by `cargo xtask test`, which sets the environment and resets the
//! lab before each test.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod support;
mod wire;
mod heavy;
