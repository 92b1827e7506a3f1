//! The real binary against the real lab. Run by `cargo xtask test`, which sets the environment and resets the
//! lab before each test.
#![expect(
    clippy::disallowed_methods,
    reason = "a script that is shipped is run as a person runs it"
)]
#![expect(clippy::panic, reason = "a test that can't go on has failed")]
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod support;
mod wire;
mod heavy;
