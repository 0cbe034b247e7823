//! Architectures, written once over the [`Backend`](crate::backend::Backend) trait.
//!
//! An architecture is one file: how its config differs from the common form, what its layer is made of and in which order the parts
//! run. `decoder` does the rest for all of them: embedding, the stack of layers or a pipeline stage's share of it, the head. To add
//! one, write the file and name it in `registry`.

mod architecture;
mod config;
#[cfg(test)]
mod config_tests;
mod decoder;
mod feedforward;
mod fields;
mod gemma2;
mod gemma3;
mod gpt_neox;
mod llama;
mod mistral;
mod mixtral;
mod parts;
mod pooling;
mod pre_norm;
mod qwen2;
mod qwen3;
mod qwen3_moe;
mod registry;
mod rope;
mod scope;

pub use config::{ExpertsConfig, GenerationDefaults, ModelConfig, NormKind};
pub use decoder::{Hidden, Model};
pub use fields::ConfigError;
pub use pooling::PoolingConfig;
pub use registry::{LoadError, architectures, load};
pub use rope::{RopeConfig, RopeScaling, YarnRange};
