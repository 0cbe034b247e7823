//! The GPU kernels, executed on the CPU: the same sources, compiled against an emulator that checks bounds, barriers and races,
//! and compared with the CPU backend on random ragged batches.
//!
//! [`emulator`] builds and loads them, [`checks`] compare one kernel at a time, [`models`] run whole models, [`mutations`] show that a
//! mistake in a kernel would be found.

mod args;
mod checks;
use tokenflow_gpu_emulator as emulator;
mod mutations;
