//! Drills that leave the processor to others, and what must not become one.

mod drills;
mod examples;
mod refusals;
mod untouched;
mod undo;
mod writers;
mod pgbouncer;
