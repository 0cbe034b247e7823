//! The layer that most architectures have: a norm before attention, another before the MLP or the experts.

use super::{
    decoder::{Layer, Scope, Step},
    feedforward::Feedforward,
    parts::Attention,
};
use crate::{
    backend::{Backend, Norm},
    weights::WeightsError,
};

pub(super) struct PreNorm<B: Backend> {
    input_norm: Norm<B::Vector>,
    attention: Attention<B>,
    post_attention_norm: Norm<B::Vector>,
    feedforward: Feedforward<B>,
}

impl<B: Backend> Layer<B> for PreNorm<B> {
    fn load(scope: &Scope<'_, B>, index: usize) -> Result<Self, WeightsError> {
        let hidden_size = scope.config.hidden_size;
        Ok(Self {
            input_norm: scope.norm("input_layernorm", hidden_size)?,
            attention: Attention::load(&scope.at("self_attn"), index)?,
            post_attention_norm: scope.norm("post_attention_layernorm", hidden_size)?,
            feedforward: Feedforward::load(scope, index)?,
        })
    }

    fn forward(&self, step: &mut Step<'_, B>) {
        step.add_norm(&self.input_norm);
        self.attention.forward(step);
        step.add_norm(&self.post_attention_norm);
        self.feedforward.forward(step);
    }
}
