//! Loads, and what goes wrong under them.

#[path = "heavy/ends.rs"]
mod ends;
#[path = "heavy/errors.rs"]
mod errors;
#[path = "heavy/passes.rs"]
mod passes;
