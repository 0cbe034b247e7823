//! The operations a model is written over, and the devices that implement them.
//!
//! A small trait of fused operations, not a tensor library: what a fused kernel does on a GPU is one call here.

mod attention;
mod batch;
pub mod cpu;
pub mod cuda;
mod error;
mod layer;
mod ops;
mod tensor;

pub use attention::{AttentionConfig, KvLayout, QkNorm, RopeTable};
pub use batch::RaggedBatch;
pub use error::BackendError;
pub use layer::{Activation, Experts, Norm, Routing};
pub use ops::Backend;
pub use tensor::{BlockFormat, DType, MatrixView, TensorView};
