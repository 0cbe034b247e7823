//! Kernels as a library, and the device that runs them.

mod build;
mod device;
mod library;

pub use build::{Mutation, sources};
pub use device::{Device, Pointer};
pub use library::{Library, library};

/// Lanes of a warp: what NVIDIA's cards and AMD's small ones have, and what AMD's large ones have.
pub const WARPS: [u32; 2] = [32, 64];
