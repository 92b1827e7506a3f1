//! Carries objects over: what stands where other tools have a fault.

pub mod object;
pub mod pace;
