//! What layers are made of. A part reads `step.normed` and writes `step.delta`, which the next [`Step::add_norm`] adds to the
//! residual stream; names and shapes of tensors are Hugging Face's.

use super::decoder::{Scope, Step};
use crate::{
    backend::{AttentionConfig, Backend, QkNorm},
    weights::{Cut, WeightsError},
};

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

    /// One tensor of `heads * parts * head_dim` rows, head by head, which become `parts` blocks of all heads; cut by heads.
    pub(super) fn load_interleaved(
        scope: &Scope<'_, B>,
        name: &str,
        [parts, heads, head_dim]: [usize; 3],
        cols: usize,
        bias: bool,
    ) -> Result<Self, WeightsError> {
        let own_heads = heads / scope.loader.group_size();
        let order: Vec<usize> = (0..parts).flat_map(|part| (0..own_heads).map(move |head| head * parts + part)).collect();
        Ok(Self {
            weight: scope.matrix_in_order(name, [heads * parts * head_dim, cols], head_dim, &order)?,
            bias: if bias { Some(scope.bias_in_order(name, heads * parts * head_dim, head_dim, &order)?) } else { None },
        })
    }

    pub(super) fn forward(&self, backend: &B, x: &B::Buffer, out: &mut B::Buffer) {
        backend.linear(x, &self.weight, self.bias.as_ref(), out);
    }
}

/// Norms of every query and key head.
pub(super) struct QkNorms<B: Backend> {
    q: B::Vector,
    k: B::Vector,
    eps: f32,
}

impl<B: Backend> QkNorms<B> {
    fn load(scope: &Scope<'_, B>) -> Result<Self, WeightsError> {
        let weight = |name| scope.norm_weight(name, scope.config.head_dim);
        Ok(Self { q: weight("q_norm")?, k: weight("k_norm")?, eps: scope.config.norm_eps })
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
    /// Tensors of the common names. `index` is the layer's place in the whole model.
    pub(super) fn load(scope: &Scope<'_, B>, index: usize) -> Result<Self, WeightsError> {
        let c = scope.config;
        let (q_rows, kv_rows) = (c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim);
        let qkv = [("q_proj", q_rows), ("k_proj", kv_rows), ("v_proj", kv_rows)];
        let qkv = Linear::load(scope, &qkv, c.hidden_size, Cut::Rows, c.attention_bias)?;
        let norms = if c.qk_norm { Some(QkNorms::load(scope)?) } else { None };
        let output = Linear::load(scope, &[("o_proj", c.hidden_size)], q_rows, Cut::Cols, c.attention_output_bias)?;
        Ok(Self::new(scope, index, qkv, norms, output))
    }

    pub(super) fn new(scope: &Scope<'_, B>, index: usize, qkv: Linear<B>, norms: Option<QkNorms<B>>, output: Linear<B>) -> Self {
        let (c, ranks) = (scope.config, scope.loader.group_size());
        let config = AttentionConfig {
            num_heads: c.num_heads / ranks,
            num_kv_heads: c.num_kv_heads / ranks,
            head_dim: c.head_dim,
            scale: c.attention_scale,
            sliding_window: c.sliding_windows[index],
            soft_cap: c.attention_soft_cap,
        };
        Self { config, qkv, norms, output }
    }

    pub(super) fn forward(&self, step: &mut Step<'_, B>) {
        let (backend, scratch) = (step.backend, &mut *step.scratch);
        self.qkv.forward(backend, &scratch.normed, &mut scratch.wide);
        let norms = self.norms.as_ref().map(|n| QkNorm { q: &n.q, k: &n.k, eps: n.eps });
        backend.rope_and_write_kv(step.batch, &mut scratch.wide, &self.config, norms, step.rope, step.kv, step.layer);
        backend.paged_attention(step.batch, &scratch.wide, &self.config, step.kv, step.layer, &mut scratch.narrow);
        self.output.forward(backend, &scratch.narrow, &mut step.hidden.delta);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use safetensors::{Dtype, tensor::TensorView};

    use super::*;
    use crate::{
        backend::cpu::{CpuBackend, CpuBuffer, CpuConfig},
        model::{ModelConfig, architecture::Names},
        weights::{Checkpoint, Loader},
    };

    /// Row `i` of the matrix is `[i]`, and so is its bias.
    #[test]
    fn interleaved_heads_are_put_in_order_for_every_rank() {
        let config = ModelConfig::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/architectures/gpt-neox")).unwrap();
        let values: Vec<u8> = (0..24u8).flat_map(|i| f32::from(i).to_le_bytes()).collect();
        let (weight, bias) = (TensorView::new(Dtype::F32, vec![24, 1], &values), TensorView::new(Dtype::F32, vec![24], &values));
        let bytes = safetensors::serialize([("qkv.weight", weight.unwrap()), ("qkv.bias", bias.unwrap())], None).unwrap();
        let checkpoint = Checkpoint::embedded("memory", Vec::leak(bytes)).unwrap();
        let backend = CpuBackend::new(CpuConfig { threads: 1, ..CpuConfig::default() }).unwrap();
        let rows = |rank, ranks| {
            let scope = Scope::new(&config, Loader::for_rank(&checkpoint, rank, ranks), &Names::COMMON, &backend);
            // Four heads of two dimensions.
            let linear = Linear::load_interleaved(&scope, "qkv", [3, 4, 2], 1, true).unwrap();
            let mut out = backend.buffer();
            linear.forward(&backend, &CpuBuffer::from_vec(1, 1, vec![1.0]), &mut out);
            out.as_slice().iter().map(|x| *x as usize / 2).collect::<Vec<_>>()
        };
        assert_eq!(rows(0, 1), [0, 1, 6, 7, 12, 13, 18, 19, 2, 3, 8, 9, 14, 15, 20, 21, 4, 5, 10, 11, 16, 17, 22, 23]);
        assert_eq!(rows(0, 2), [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11]);
        assert_eq!(rows(1, 2), [12, 13, 18, 19, 14, 15, 20, 21, 16, 17, 22, 23]);
    }
}
