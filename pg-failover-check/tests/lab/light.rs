//! Drills that leave the processor to others, and what must not become one.

mod drills;
mod examples;
mod pgbouncer;
mod refusals;
mod undo;
#[path = "light/writers.rs"]
mod writers;
