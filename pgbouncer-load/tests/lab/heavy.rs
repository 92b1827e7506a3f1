//! Loads, and what goes wrong under them.

#[path = "heavy/ends.rs"]
mod ends;
#[path = "heavy/failures.rs"]
mod failures;
#[path = "heavy/passes.rs"]
mod passes;
