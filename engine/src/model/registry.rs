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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        backend::cpu::{CpuBackend, CpuConfig},
        weights::Checkpoint,
    };

    /// What loading the fixture `name` says when its config is changed.
    fn error(name: &str, change: impl Fn(&mut ModelConfig)) -> String {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
        let mut config = ModelConfig::open(&folder).unwrap();
        change(&mut config);
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let backend = CpuBackend::new(CpuConfig { threads: 1, ..CpuConfig::default() }).unwrap();
        let loaded = load(&config, Loader::new(&checkpoint), &backend, 0..config.num_layers);
        loaded.err().map(|e| e.to_string().replace(&folder.display().to_string(), "DIR")).unwrap_or_default()
    }

    #[test]
    fn a_checkpoint_that_does_not_fit_its_config_is_refused() {
        assert_eq!(error("qwen3", |_| ()), "");
        assert_eq!(
            error("qwen3", |c| c.hidden_size = 32),
            "DIR/model.safetensors: tensor \"model.layers.0.input_layernorm.weight\" has shape [64] where the config asks for [32]"
        );
        assert_eq!(
            error("qwen3", |c| c.num_kv_heads = 4),
            "DIR/model.safetensors: tensor \"model.layers.0.self_attn.k_proj.weight\" has shape [64, 64] where the config asks for [128, 64]"
        );
        assert_eq!(error("qwen3", |c| c.tie_word_embeddings = false), "the checkpoint DIR has no tensor \"lm_head.weight\"");
        assert_eq!(
            error("llama", |c| c.attention_bias = true),
            "the checkpoint DIR has no tensor \"model.layers.0.self_attn.q_proj.bias\""
        );
        assert_eq!(
            error("qwen3", |c| c.architecture = "GPT2LMHeadModel".into()),
            "config.json: architecture \"GPT2LMHeadModel\" is not supported; known are LlamaForCausalLM, Qwen3ForCausalLM"
        );
    }
}
