//! Carries objects over: what stands where other tools have a fault.

pub mod journal;
pub mod pace;
pub mod object;
pub mod flow;
pub mod extraneous;
pub mod freeze;
pub mod buckets;
