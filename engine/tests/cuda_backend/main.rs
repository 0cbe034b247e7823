//! The engine's GPU backend as it is, over an emulated card: the real driver code finds libraries that run kernels on the CPU and check every
//! access, in any order that streams and events allow. Whole tiny models must say what they say on the CPU backend.

mod architectures;
mod cache;
mod device;
#[allow(dead_code)]
#[path = "../parity/driver.rs"]
mod driver;
mod sampling;
mod steady;
mod steps;
#[path = "../parity/weights.rs"]
mod weights;
