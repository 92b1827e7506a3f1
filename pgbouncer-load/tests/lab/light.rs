//! What is refused before anything is loaded.

mod refusals;
