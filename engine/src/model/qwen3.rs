//! Qwen3 (dense): grouped-query attention with an RMS norm on every query and key head, gated MLP.

use super::{
    decoder::{Layer, Scope, Step},
    parts::{Attention, GatedMlp, Norm, QkNorms},
};
use crate::{backend::Backend, weights::WeightsError};

pub(super) struct Qwen3Layer<B: Backend> {
    input_norm: Norm<B>,
    attention: Attention<B>,
    post_attention_norm: Norm<B>,
    mlp: GatedMlp<B>,
}

impl<B: Backend> Layer<B> for Qwen3Layer<B> {
    fn load(scope: &Scope<'_, B>, index: usize) -> Result<Self, WeightsError> {
        let (attention, mlp, hidden_size) = (scope.at("self_attn"), scope.at("mlp"), scope.config.hidden_size);
        Ok(Self {
            input_norm: scope.norm("input_layernorm", hidden_size)?,
            attention: Attention::load(&attention, index, Some(QkNorms::load(&attention)?))?,
            post_attention_norm: scope.norm("post_attention_layernorm", hidden_size)?,
            mlp: GatedMlp::load(&mlp)?,
        })
    }

    fn forward(&self, step: &mut Step<'_, B>) {
        step.add_norm(&self.input_norm);
        self.attention.forward(step);
        step.add_norm(&self.post_attention_norm);
        self.mlp.forward(step);
    }
}
