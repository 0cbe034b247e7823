use std::ops::Range;

use super::{ConfigError, Model, ModelConfig, decoder::Decoder, llama::LlamaLayer, qwen3::Qwen3Layer};
use crate::{
    backend::Backend,
    weights::{Loader, WeightsError},
};

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

/// Lists every architecture once: its name in `config.json` and its layer.
macro_rules! registry {
    ($($name:literal => $layer:ident,)*) => {
        /// The architectures that [`load`] knows, by their names in `config.json`.
        pub fn architectures() -> &'static [&'static str] {
            &[$($name),*]
        }

        /// Loads `layers` of the model that `config` describes: all of `0..num_layers`, or a pipeline stage's share.
        ///
        /// # Errors
        /// When a tensor is missing or does not fit the config, or the backend cannot hold it.
        pub fn load<B: Backend>(config: &ModelConfig, loader: Loader<'_>, backend: &B, layers: Range<usize>) -> Result<Box<dyn Model<B>>, LoadError> {
            match config.architecture.as_str() {
                $($name => Ok(Box::new(Decoder::<B, $layer<B>>::load(config, loader, backend, layers)?)),)*
                other => Err(ConfigError::Architecture { file: "config.json".into(), found: other.into(), known: architectures().join(", ") }.into()),
            }
        }
    };
}

registry! {
    "LlamaForCausalLM" => LlamaLayer,
    "Qwen3ForCausalLM" => Qwen3Layer,
}
