//! Llama (2, 3 and what is built like them): grouped-query attention, gated MLP, optional biases.

use super::{
    decoder::{Layer, Scope, Step},
    parts::{Attention, GatedMlp, Norm},
};
use crate::{backend::Backend, weights::WeightsError};

pub(super) struct LlamaLayer<B: Backend> {
    input_norm: Norm<B>,
    attention: Attention<B>,
    post_attention_norm: Norm<B>,
    mlp: GatedMlp<B>,
}

impl<B: Backend> Layer<B> for LlamaLayer<B> {
    fn load(scope: &Scope<'_, B>, index: usize) -> Result<Self, WeightsError> {
        let hidden_size = scope.config.hidden_size;
        Ok(Self {
            input_norm: scope.norm("input_layernorm", hidden_size)?,
            attention: Attention::load(&scope.at("self_attn"), index, None)?,
            post_attention_norm: scope.norm("post_attention_layernorm", hidden_size)?,
            mlp: GatedMlp::load(&scope.at("mlp"))?,
        })
    }

    fn forward(&self, step: &mut Step<'_, B>) {
        step.add_norm(&self.input_norm);
        self.attention.forward(step);
        step.add_norm(&self.post_attention_norm);
        self.mlp.forward(step);
    }
}
