//! Tests that can do with any node as primary, and leave a formation that is whole.

mod drills;
mod examples;
mod refusals;
mod undo;
mod writers;
mod pgbouncer;
