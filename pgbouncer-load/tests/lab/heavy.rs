//! Loads, and what goes wrong under them.

mod failures;
mod whole;
