//! What is refused before anything is loaded.

#[path = "light/refusals.rs"]
mod refusals;
