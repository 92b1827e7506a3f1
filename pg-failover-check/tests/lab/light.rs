//! Drills that leave the processor to others, and what must not become one.

#[path = "light/drills.rs"]
mod drills;
#[path = "light/examples.rs"]
mod examples;
#[path = "light/refusals.rs"]
mod refusals;
#[path = "light/undo.rs"]
mod undo;
