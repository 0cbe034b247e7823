//! Checkpoints: what a folder of safetensors files, a GGUF file, or one file inside the binary holds, and which part of it a rank needs.
//!
//! Files are mapped, not read: a tensor's bytes are touched when a backend packs them. Model code asks a [`Loader`] for a matrix by its
//! Hugging Face name and gets it in whichever encoding it is stored. Every error is one sentence that names the file and the tensor.

mod checkpoint;
mod error;
mod file;
mod formats;
mod gguf;
pub mod hub;
mod loader;
mod safetensors;
mod tensor;
#[cfg(test)]
mod tests;

pub use checkpoint::Checkpoint;
pub use error::WeightsError;
pub use gguf::Gguf;
use gguf::parts as gguf_parts;
pub use loader::{Cut, Loader};
pub use tensor::{Matrix, Tensor};
