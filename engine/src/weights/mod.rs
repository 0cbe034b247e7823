//! Checkpoints: what a folder of safetensors files, or one file inside the binary, holds, and which part of it a rank needs.
//!
//! Files are mapped, not read: a tensor's bytes are touched when a backend packs them. Every error is one sentence that names the
//! file and the tensor.

mod checkpoint;
mod error;
mod header;
mod loader;

pub use checkpoint::Checkpoint;
pub use error::WeightsError;
pub use loader::{Cut, Loader, Tensor};
