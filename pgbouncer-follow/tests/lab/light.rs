//! The pooler while the formation changes under it, and what its mode forbids.

#[path = "light/following.rs"]
mod following;
#[path = "light/sabotage.rs"]
mod sabotage;
#[path = "light/untouched.rs"]
mod untouched;
