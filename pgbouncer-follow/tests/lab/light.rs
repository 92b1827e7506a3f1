//! The pooler while the formation changes under it, and what its mode forbids.

mod untouched;
mod whole;
