//! The pooler while the formation changes under it, and what its mode forbids.

#[path = "light/following.rs"]
mod following;
#[path = "light/sabotage.rs"]
mod sabotage;
#[path = "light/transaction_mode.rs"]
mod transaction_mode;
