//! GPT-NeoX: layer norms with bias, queries, keys and values in one tensor head by head, rotary embedding of a part of each head,
//! a plain MLP; attention and MLP one after the other or, in most models, side by side.

use super::{
    ModelConfig,
    architecture::{Architecture, Names},
    config::NormKind,
    decoder::{self, Scope, Step},
    fields::{ConfigError, Fields},
    parts::{Attention, Linear},
};
use crate::{
    backend::{Activation, Backend, Norm},
    weights::{Cut, WeightsError},
};

pub(super) const ARCHITECTURE: Architecture = Architecture {
    names: Names {
        roots: &["gpt_neox", ""],
        embedding: "embed_in",
        final_norm: "final_layer_norm",
        heads: &["embed_out", "lm_head"],
        ..Names::COMMON
    },
    aliases: &[("layer_norm_eps", "rms_norm_eps"), ("rotary_pct", "partial_rotary_factor"), ("rotary_emb_base", "rope_theta")],
    defaults: r#"{
        "hidden_act": "gelu", "rms_norm_eps": 1e-5, "partial_rotary_factor": 0.25, "attention_bias": true, "max_position_embeddings": 2048,
        "use_parallel_residual": true
    }"#,
    configure,
};

fn configure(fields: &Fields, config: &mut ModelConfig) -> Result<(), ConfigError> {
    config.norm_kind = NormKind::Layer;
    config.num_kv_heads = config.num_heads;
    config.parallel_residual = fields.flag("use_parallel_residual")?;
    Ok(())
}

pub(super) struct Layer<B: Backend> {
    input_norm: Norm<B::Vector>,
    attention: Attention<B>,
    post_attention_norm: Norm<B::Vector>,
    up: Linear<B>,
    activation: Activation,
    down: Linear<B>,
    parallel_residual: bool,
}

impl<B: Backend> decoder::Layer<B> for Layer<B> {
    fn load(scope: &Scope<'_, B>, index: usize) -> Result<Self, WeightsError> {
        let (c, attention, mlp) = (scope.config, scope.at("attention"), scope.at("mlp"));
        let (hidden, inner) = (c.hidden_size, c.intermediate_size);
        let qkv = Linear::load_interleaved(&attention, "query_key_value", [3, c.num_heads, c.head_dim], hidden, c.attention_bias)?;
        let output = Linear::load(&attention, &[("dense", hidden)], hidden, Cut::Cols, c.attention_output_bias)?;
        Ok(Self {
            input_norm: scope.norm("input_layernorm", hidden)?,
            attention: Attention::new(&attention, index, qkv, None, output),
            post_attention_norm: scope.norm("post_attention_layernorm", hidden)?,
            up: Linear::load(&mlp, &[("dense_h_to_4h", inner)], hidden, Cut::Rows, true)?,
            activation: c.activation,
            down: Linear::load(&mlp, &[("dense_4h_to_h", hidden)], inner, Cut::Cols, true)?,
            parallel_residual: c.parallel_residual,
        })
    }

    fn forward(&self, step: &mut Step<'_, B>) {
        step.add_norm(&self.input_norm);
        self.attention.forward(step);
        if self.parallel_residual {
            step.norm_then_add(&self.post_attention_norm);
        } else {
            step.add_norm(&self.post_attention_norm);
        }
        let (backend, scratch) = (step.backend, &mut *step.scratch);
        self.up.forward(backend, &scratch.normed, &mut scratch.wide);
        backend.activate(self.activation, &mut scratch.wide);
        self.down.forward(backend, &scratch.wide, &mut step.hidden.delta);
    }
}
