//! Architectures, written once over the [`Backend`](crate::backend::Backend) trait.
//!
//! An architecture is one file: what its layer is made of and in which order the parts run. [`decoder`] does the rest for all of
//! them: embedding, the stack of layers or a pipeline stage's share of it, the head. To add one, write the file and name it in
//! [`registry`].

mod config;
mod decoder;
mod fields;
mod llama;
mod parts;
mod qwen3;
mod registry;
mod rope;

pub use config::{GenerationDefaults, ModelConfig};
pub use decoder::{Hidden, Model};
pub use fields::ConfigError;
pub use registry::{LoadError, architectures, load};
pub use rope::{RopeConfig, RopeScaling};
