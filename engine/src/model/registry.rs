use std::ops::Range;

use super::{
    ConfigError, Model, ModelConfig, architecture::Architecture, decoder::Decoder, gemma2, gemma3, gpt_neox, llama, mistral, mixtral,
    qwen2, qwen3, qwen3_moe,
};
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

/// Lists every architecture once: its name in `config.json` and its module.
macro_rules! registry {
    ($($name:literal => $module:ident,)*) => {
        /// The architectures that [`load`] knows, by their names in `config.json`.
        pub fn architectures() -> &'static [&'static str] {
            &[$($name),*]
        }

        /// The architecture of that name in `config.json`.
        pub(super) fn find(name: &str) -> Option<&'static Architecture> {
            match name {
                $($name => Some(&$module::ARCHITECTURE),)*
                _ => None,
            }
        }

        /// Loads `layers` of the model that `config` describes: all of `0..num_layers`, or a pipeline stage's share.
        ///
        /// # Errors
        /// When a tensor is missing or does not fit the config, or the backend cannot hold it.
        pub fn load<B: Backend>(config: &ModelConfig, loader: Loader<'_>, backend: &B, layers: Range<usize>) -> Result<Box<dyn Model<B>>, LoadError> {
            match config.architecture.as_str() {
                $($name => {
                    let names = &$module::ARCHITECTURE.names;
                    Ok(Box::new(Decoder::<B, $module::Layer<B>>::load(config, names, loader, backend, layers)?))
                })*
                other => Err(ConfigError::Architecture { file: "config.json".into(), found: other.into(), known: architectures().join(", ") }.into()),
            }
        }
    };
}

registry! {
    "Gemma2ForCausalLM" => gemma2,
    "Gemma3ForCausalLM" => gemma3,
    "Gemma3ForConditionalGeneration" => gemma3,
    "GPTNeoXForCausalLM" => gpt_neox,
    "LlamaForCausalLM" => llama,
    "MistralForCausalLM" => mistral,
    "MixtralForCausalLM" => mixtral,
    "Qwen2ForCausalLM" => qwen2,
    "Qwen3ForCausalLM" => qwen3,
    "Qwen3MoeForCausalLM" => qwen3_moe,
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
            "config.json: architecture \"GPT2LMHeadModel\" is not supported; known are Gemma2ForCausalLM, Gemma3ForCausalLM, \
             Gemma3ForConditionalGeneration, GPTNeoXForCausalLM, LlamaForCausalLM, MistralForCausalLM, MixtralForCausalLM, Qwen2ForCausalLM, \
             Qwen3ForCausalLM, Qwen3MoeForCausalLM"
        );
    }
}
