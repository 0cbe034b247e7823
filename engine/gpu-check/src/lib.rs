//! Compares what a GPU computes with the CPU, and measures it.
//!
//! [`card`] holds the device of a check; [`kernels`] compare one kernel at a time.

pub mod card;
pub mod kernels;
