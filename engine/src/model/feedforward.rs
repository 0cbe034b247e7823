//! What follows attention in a layer: a gated MLP, or a mixture of them. Reads `step.normed` and writes `step.delta`.

use super::{
    ExpertsConfig,
    decoder::{Scope, Step},
    parts::Linear,
};
use crate::{
    backend::{Activation, Backend, Experts},
    weights::{Cut, WeightsError},
};

/// `down(f(gate(x)) * up(x))`.
pub(super) struct GatedMlp<B: Backend> {
    gate_up: Linear<B>,
    activation: Activation,
    down: Linear<B>,
}

impl<B: Backend> GatedMlp<B> {
    pub(super) fn load(scope: &Scope<'_, B>) -> Result<Self, WeightsError> {
        let c = scope.config;
        let gate_up = [("gate_proj", c.intermediate_size), ("up_proj", c.intermediate_size)];
        Ok(Self {
            gate_up: Linear::load(scope, &gate_up, c.hidden_size, Cut::Rows, c.mlp_bias)?,
            activation: c.activation,
            down: Linear::load(scope, &[("down_proj", c.hidden_size)], c.intermediate_size, Cut::Cols, c.mlp_bias)?,
        })
    }

    pub(super) fn forward(&self, step: &mut Step<'_, B>) {
        let (backend, scratch) = (step.backend, &mut *step.scratch);
        self.gate_up.forward(backend, &scratch.normed, &mut scratch.wide);
        backend.gated_activate(self.activation, &scratch.wide, &mut scratch.narrow);
        self.down.forward(backend, &scratch.narrow, &mut step.hidden.delta);
    }
}

/// Experts and the router that sends each row to some of them.
pub(super) struct Mixture<B: Backend> {
    router: Linear<B>,
    experts: Experts<B::Matrices>,
}

impl<B: Backend> Mixture<B> {
    /// Every rank has its share of each expert.
    fn load(scope: &Scope<'_, B>, routing: &ExpertsConfig) -> Result<Self, WeightsError> {
        let (hidden, inner, [gate, up, down]) = (scope.config.hidden_size, routing.intermediate_size, scope.names.expert);
        let expert = |index: usize| scope.at(&format!("experts.{index}"));
        let gate_up = |index| expert(index).matrix(&[(gate, inner), (up, inner)], hidden, Cut::Rows);
        let down = |index| expert(index).matrix(&[(down, hidden)], inner, Cut::Cols);
        let indices = 0..routing.num_experts;
        Ok(Self {
            router: Linear::load(scope, &[("gate", routing.num_experts)], hidden, Cut::None, false)?,
            experts: Experts {
                routing: routing.routing,
                activation: scope.config.activation,
                gate_up: scope.experts(indices.clone().map(gate_up).collect::<Result<_, _>>()?)?,
                down: scope.experts(indices.map(down).collect::<Result<_, _>>()?)?,
            },
        })
    }

    fn forward(&self, step: &mut Step<'_, B>) {
        let (backend, scratch) = (step.backend, &mut *step.scratch);
        self.router.forward(backend, &scratch.normed, &mut scratch.wide);
        backend.experts(&scratch.normed, &scratch.wide, &self.experts, &mut step.hidden.delta);
    }
}

/// What the config asks for in this layer.
pub(super) enum Feedforward<B: Backend> {
    Dense(GatedMlp<B>),
    Mixture(Mixture<B>),
}

impl<B: Backend> Feedforward<B> {
    /// `scope` is the layer's, `index` its place in the whole model.
    pub(super) fn load(scope: &Scope<'_, B>, index: usize) -> Result<Self, WeightsError> {
        match scope.config.experts.as_ref().filter(|experts| experts.layers[index]) {
            Some(experts) => Ok(Self::Mixture(Mixture::load(&scope.at(scope.names.experts), experts)?)),
            None => Ok(Self::Dense(GatedMlp::load(&scope.at("mlp"))?)),
        }
    }

    pub(super) fn forward(&self, step: &mut Step<'_, B>) {
        match self {
            Self::Dense(mlp) => mlp.forward(step),
            Self::Mixture(mixture) => mixture.forward(step),
        }
    }
}
