//! What layers are made of. A part reads `step.normed` and writes `step.delta`, which the next [`Step::add_norm`] adds to the
//! residual stream; names and shapes of tensors are Hugging Face's.

use super::decoder::{Scope, Step};
use crate::{
    backend::{AttentionConfig, Backend, QkNorm},
    weights::{Cut, WeightsError},
};

/// RMS norm.
pub(super) struct Norm<B: Backend> {
    pub(super) weight: B::Vector,
    pub(super) eps: f32,
}

/// One product, of one or several matrices stacked by rows.
pub(super) struct Linear<B: Backend> {
    weight: B::Matrix,
    bias: Option<B::Vector>,
}

impl<B: Backend> Linear<B> {
    /// Matrices `names` of (name, rows) with `cols` columns.
    pub(super) fn load(scope: &Scope<'_, B>, names: &[(&str, usize)], cols: usize, cut: Cut, bias: bool) -> Result<Self, WeightsError> {
        Ok(Self {
            weight: scope.matrix(names, cols, cut)?,
            // Partial sums are added up over the group, so only one rank may add the bias.
            bias: if bias && (cut != Cut::Cols || scope.loader.rank() == 0) { Some(scope.biases(names, cut)?) } else { None },
        })
    }

    fn forward(&self, backend: &B, x: &B::Buffer, out: &mut B::Buffer) {
        backend.linear(x, &self.weight, self.bias.as_ref(), out);
    }
}

/// Norms of every query and key head.
pub(super) struct QkNorms<B: Backend> {
    q: Norm<B>,
    k: Norm<B>,
}

impl<B: Backend> QkNorms<B> {
    pub(super) fn load(scope: &Scope<'_, B>) -> Result<Self, WeightsError> {
        Ok(Self { q: scope.norm("q_norm", scope.config.head_dim)?, k: scope.norm("k_norm", scope.config.head_dim)? })
    }
}

/// Grouped-query attention with rotary embedding over the paged cache.
pub(super) struct Attention<B: Backend> {
    config: AttentionConfig,
    qkv: Linear<B>,
    norms: Option<QkNorms<B>>,
    output: Linear<B>,
}

impl<B: Backend> Attention<B> {
    /// `index` is the layer's place in the whole model.
    pub(super) fn load(scope: &Scope<'_, B>, index: usize, norms: Option<QkNorms<B>>) -> Result<Self, WeightsError> {
        let (c, ranks) = (scope.config, scope.loader.group_size());
        let (q_rows, kv_rows) = (c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim);
        let qkv = [("q_proj", q_rows), ("k_proj", kv_rows), ("v_proj", kv_rows)];
        Ok(Self {
            config: AttentionConfig {
                num_heads: c.num_heads / ranks,
                num_kv_heads: c.num_kv_heads / ranks,
                head_dim: c.head_dim,
                scale: (c.head_dim as f32).powf(-0.5),
                sliding_window: c.sliding_windows[index],
            },
            qkv: Linear::load(scope, &qkv, c.hidden_size, Cut::Rows, c.attention_bias)?,
            norms,
            output: Linear::load(scope, &[("o_proj", c.hidden_size)], q_rows, Cut::Cols, c.attention_bias)?,
        })
    }

    pub(super) fn forward(&self, step: &mut Step<'_, B>) {
        let (backend, scratch) = (step.backend, &mut *step.scratch);
        self.qkv.forward(backend, &scratch.normed, &mut scratch.wide);
        let norms = self.norms.as_ref().map(|n| QkNorm { q: &n.q.weight, k: &n.k.weight, eps: n.q.eps });
        backend.rope_and_write_kv(step.batch, &mut scratch.wide, &self.config, norms, step.rope, step.kv, step.layer);
        backend.paged_attention(step.batch, &scratch.wide, &self.config, step.kv, step.layer, &mut scratch.narrow);
        self.output.forward(backend, &scratch.narrow, &mut step.hidden.delta);
    }
}

/// `down(silu(gate(x)) * up(x))`.
pub(super) struct GatedMlp<B: Backend> {
    gate_up: Linear<B>,
    down: Linear<B>,
}

impl<B: Backend> GatedMlp<B> {
    pub(super) fn load(scope: &Scope<'_, B>) -> Result<Self, WeightsError> {
        let c = scope.config;
        let gate_up = [("gate_proj", c.intermediate_size), ("up_proj", c.intermediate_size)];
        Ok(Self {
            gate_up: Linear::load(scope, &gate_up, c.hidden_size, Cut::Rows, c.mlp_bias)?,
            down: Linear::load(scope, &[("down_proj", c.hidden_size)], c.intermediate_size, Cut::Cols, c.mlp_bias)?,
        })
    }

    pub(super) fn forward(&self, step: &mut Step<'_, B>) {
        let (backend, scratch) = (step.backend, &mut *step.scratch);
        self.gate_up.forward(backend, &scratch.normed, &mut scratch.wide);
        backend.silu_mul(&scratch.wide, &mut scratch.narrow);
        self.down.forward(backend, &scratch.narrow, &mut step.hidden.delta);
    }
}
