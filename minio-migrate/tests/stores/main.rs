//! The real program against two small stores of the test's own, which do to it what networks and servers do: nothing that is
//! wrong may ever be called the same.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]
#![expect(clippy::expect_used, reason = "a test that can't go on has failed")]

mod store;
mod verify;
mod copy;
mod ranges;
mod part;
