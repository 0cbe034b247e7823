//! Gemma 3 (text): norms before and after attention and MLP, local layers with a sliding window and a rotary base of their own.
//!
//! Norms scale by `1 + weight`; embeddings are scaled by the square root of their width.

use super::{
    ModelConfig,
    architecture::Architecture,
    config::NormKind,
    decoder::{self, Scope, Step},
    feedforward::GatedMlp,
    fields::{ConfigError, Fields},
    parts::Attention,
};
use crate::{
    backend::{Backend, Norm},
    weights::WeightsError,
};

/// The multimodal checkpoints leave out of `text_config` what is the default.
pub(super) const ARCHITECTURE: Architecture = Architecture {
    defaults: r#"{
        "vocab_size": 262208, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "rms_norm_eps": 1e-6,
        "max_position_embeddings": 131072, "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": true,
        "rope_theta": 1e6, "rope_local_base_freq": 1e4, "query_pre_attn_scalar": 256, "sliding_window": 4096,
        "sliding_window_pattern": 6, "eos_token_id": 1, "bos_token_id": 2
    }"#,
    configure,
    // How transformers 5 saves it.
    aliases: &[("_sliding_window_pattern", "sliding_window_pattern")],
    ..Architecture::COMMON
};

fn configure(fields: &Fields, config: &mut ModelConfig) -> Result<(), ConfigError> {
    if fields.flag("use_bidirectional_attention")? {
        return Err(fields.error("use_bidirectional_attention", "is true, which is not supported"));
    }
    config.qk_norm = true;
    configure_common(fields, config)
}

/// What Gemma 2 has too.
pub(super) fn configure_common(fields: &Fields, config: &mut ModelConfig) -> Result<(), ConfigError> {
    config.norm_kind = NormKind::RmsPlusOne;
    config.embedding_scale = (config.hidden_size as f32).sqrt();
    config.attention_scale = fields.positive("query_pre_attn_scalar")?.powf(-0.5) as f32;
    config.attention_soft_cap = fields.optional_positive("attn_logit_softcapping")?.map(|cap| cap as f32);
    config.logits_soft_cap = fields.optional_positive("final_logit_softcapping")?.map(|cap| cap as f32);
    if fields.optional::<Vec<String>>("layer_types")?.is_none() {
        let pattern = fields.count("sliding_window_pattern")?;
        for (layer, window) in config.sliding_windows.iter_mut().enumerate() {
            *window = window.filter(|_| !(layer + 1).is_multiple_of(pattern));
        }
    }
    Ok(())
}

pub(super) struct Layer<B: Backend> {
    input_norm: Norm<B::Vector>,
    attention: Attention<B>,
    post_attention_norm: Norm<B::Vector>,
    pre_feedforward_norm: Norm<B::Vector>,
    mlp: GatedMlp<B>,
    post_feedforward_norm: Norm<B::Vector>,
}

impl<B: Backend> decoder::Layer<B> for Layer<B> {
    fn load(scope: &Scope<'_, B>, index: usize) -> Result<Self, WeightsError> {
        let norm = |name| scope.norm(name, scope.config.hidden_size);
        Ok(Self {
            input_norm: norm("input_layernorm")?,
            attention: Attention::load(&scope.at("self_attn"), index)?,
            post_attention_norm: norm("post_attention_layernorm")?,
            pre_feedforward_norm: norm("pre_feedforward_layernorm")?,
            mlp: GatedMlp::load(&scope.at("mlp"))?,
            post_feedforward_norm: norm("post_feedforward_layernorm")?,
        })
    }

    fn forward(&self, step: &mut Step<'_, B>) {
        step.add_norm(&self.input_norm);
        self.attention.forward(step);
        step.norm_delta(&self.post_attention_norm);
        step.add_norm(&self.pre_feedforward_norm);
        self.mlp.forward(step);
        step.norm_delta(&self.post_feedforward_norm);
    }
}
