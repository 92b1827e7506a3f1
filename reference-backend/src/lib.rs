//! The application of the lab, as far as its servers share it: what they need of Redis.

pub mod redis;
