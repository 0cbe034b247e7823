//! The CPU backend.

mod buffer;
mod config;

use half::{bf16, f16};

pub use buffer::{CpuBuffer, CpuVector};
pub use config::{ComputeType, CpuConfig, Isa, KvType};

use super::{AttentionConfig, Backend, BackendError, DType, KvLayout, QkNorm, RaggedBatch, RopeTable, TensorView};
use crate::{
    sampling::{self, SampledToken},
    scheduler::SampleRequest,
};

pub struct CpuBackend;

impl CpuBackend {
    /// # Errors
    /// When the machine lacks the instruction set that `config` asks for.
    pub fn new(_config: CpuConfig) -> Result<Self, BackendError> {
        Ok(Self)
    }
}

pub struct CpuMatrix {
    rows: usize,
    cols: usize,
    data: Vec<f32>,
}

impl CpuMatrix {
    pub fn in_features(&self) -> usize {
        self.cols
    }

    pub fn out_features(&self) -> usize {
        self.rows
    }
}

pub struct CpuKvCache {
    layout: KvLayout,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl CpuKvCache {
    fn at(&self, layer: usize, slot: usize, head: usize) -> usize {
        let slots = self.layout.num_blocks * self.layout.block_size;
        ((layer * slots + slot) * self.layout.num_kv_heads + head) * self.layout.head_dim
    }
}

fn widen(view: &TensorView<'_>) -> Vec<f32> {
    match view.dtype {
        DType::F32 => view.bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes"))).collect(),
        DType::F16 => view.bytes.chunks_exact(2).map(|b| f16::from_le_bytes(b.try_into().expect("2 bytes")).to_f32()).collect(),
        DType::BF16 => view.bytes.chunks_exact(2).map(|b| bf16::from_le_bytes(b.try_into().expect("2 bytes")).to_f32()).collect(),
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 16];
    let (a_chunks, b_chunks) = (a.chunks_exact(16), b.chunks_exact(16));
    let tail: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a_chunks.zip(b_chunks) {
        for i in 0..16 {
            sums[i] += x[i] * y[i];
        }
    }
    sums.iter().sum::<f32>() + tail
}

fn normalise(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let scale = 1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt();
    for ((o, x), w) in out.iter_mut().zip(x).zip(weight) {
        *o = x * scale * w;
    }
}

impl Backend for CpuBackend {
    type Matrix = CpuMatrix;
    type Vector = CpuVector;
    type Buffer = CpuBuffer;
    type KvCache = CpuKvCache;
    type Batch = RaggedBatch;

    fn name(&self) -> &'static str {
        "cpu"
    }

    fn matrix(&self, parts: &[TensorView<'_>]) -> Result<CpuMatrix, BackendError> {
        let cols = parts[0].shape[1];
        if let Some(part) = parts.iter().find(|p| p.shape[1] != cols) {
            return Err(BackendError::Columns { expected: cols, found: part.shape[1] });
        }
        Ok(CpuMatrix { rows: parts.iter().map(|p| p.shape[0]).sum(), cols, data: parts.iter().flat_map(widen).collect() })
    }

    fn vector(&self, parts: &[TensorView<'_>]) -> Result<CpuVector, BackendError> {
        Ok(CpuVector(parts.iter().flat_map(widen).collect()))
    }

    fn vector_f32(&self, values: &[f32]) -> CpuVector {
        CpuVector(values.to_vec())
    }

    fn buffer(&self) -> CpuBuffer {
        CpuBuffer::default()
    }

    fn kv_cache(&self, layout: KvLayout) -> Result<CpuKvCache, BackendError> {
        let len = layout.num_layers * layout.num_blocks * layout.block_size * layout.num_kv_heads * layout.head_dim;
        Ok(CpuKvCache { layout, keys: vec![0.0; len], values: vec![0.0; len] })
    }

    fn kv_block_bytes(&self, layout: KvLayout) -> usize {
        layout.num_layers * layout.block_size * layout.num_kv_heads * layout.head_dim * 8
    }

    fn batch(&self, batch: RaggedBatch) -> RaggedBatch {
        batch
    }

    fn embed(&self, batch: &RaggedBatch, table: &CpuMatrix, out: &mut CpuBuffer) {
        out.reshape(batch.num_tokens(), table.cols);
        for (row, &token) in out.as_mut_slice().chunks_exact_mut(table.cols).zip(&batch.tokens) {
            row.copy_from_slice(&table.data[token as usize * table.cols..][..table.cols]);
        }
    }

    fn rms_norm(&self, x: &CpuBuffer, weight: &CpuVector, eps: f32, out: &mut CpuBuffer) {
        out.reshape(x.rows(), x.cols());
        for (o, x) in out.as_mut_slice().chunks_exact_mut(x.cols()).zip(x.as_slice().chunks_exact(x.cols())) {
            normalise(x, &weight.0, eps, o);
        }
    }

    fn add_rms_norm(&self, x: &mut CpuBuffer, delta: &CpuBuffer, weight: &CpuVector, eps: f32, out: &mut CpuBuffer) {
        x.as_mut_slice().iter_mut().zip(delta.as_slice()).for_each(|(x, d)| *x += d);
        self.rms_norm(x, weight, eps, out);
    }

    fn linear(&self, x: &CpuBuffer, weight: &CpuMatrix, bias: Option<&CpuVector>, out: &mut CpuBuffer) {
        debug_assert_eq!(x.cols(), weight.cols);
        out.reshape(x.rows(), weight.rows);
        for (r, row) in out.as_mut_slice().chunks_exact_mut(weight.rows).enumerate() {
            for (n, (o, w)) in row.iter_mut().zip(weight.data.chunks_exact(weight.cols)).enumerate() {
                *o = dot(x.row(r), w) + bias.map_or(0.0, |b| b.0[n]);
            }
        }
    }

    fn silu_mul(&self, x: &CpuBuffer, out: &mut CpuBuffer) {
        let n = x.cols() / 2;
        out.reshape(x.rows(), n);
        for (o, x) in out.as_mut_slice().chunks_exact_mut(n).zip(x.as_slice().chunks_exact(2 * n)) {
            for i in 0..n {
                o[i] = x[i] / (1.0 + (-x[i]).exp()) * x[n + i];
            }
        }
    }

    fn rope_and_write_kv(
        &self,
        batch: &RaggedBatch,
        qkv: &mut CpuBuffer,
        attention: &AttentionConfig,
        norms: Option<QkNorm<'_, CpuVector>>,
        rope: &RopeTable<CpuVector>,
        kv: &mut CpuKvCache,
        layer: usize,
    ) {
        let (heads, kv_heads, dim, half) = (attention.num_heads, attention.num_kv_heads, attention.head_dim, rope.rotary_dim / 2);
        let cols = qkv.cols();
        for (t, row) in qkv.as_mut_slice().chunks_exact_mut(cols).enumerate() {
            for h in 0..heads + kv_heads {
                let head = &mut row[h * dim..][..dim];
                if let Some(norms) = &norms {
                    let weight = if h < heads { norms.q } else { norms.k };
                    let copy = head.to_vec();
                    normalise(&copy, &weight.0, norms.eps, head);
                }
                for i in 0..half {
                    let (sin, cos) = (batch.positions[t] as f32 * rope.inv_freq.0[i]).sin_cos();
                    let (a, b) = (head[i], head[half + i]);
                    head[i] = (a * cos - b * sin) * rope.scale;
                    head[half + i] = (b * cos + a * sin) * rope.scale;
                }
            }
            for h in 0..kv_heads {
                let at = kv.at(layer, batch.slots[t] as usize, h);
                kv.keys[at..][..dim].copy_from_slice(&row[(heads + h) * dim..][..dim]);
                kv.values[at..][..dim].copy_from_slice(&row[(heads + kv_heads + h) * dim..][..dim]);
            }
        }
    }

    fn paged_attention(
        &self,
        batch: &RaggedBatch,
        qkv: &CpuBuffer,
        attention: &AttentionConfig,
        kv: &CpuKvCache,
        layer: usize,
        out: &mut CpuBuffer,
    ) {
        let (heads, dim, block_size) = (attention.num_heads, attention.head_dim, kv.layout.block_size);
        out.reshape(batch.num_tokens(), heads * dim);
        for s in 0..batch.context_len.len() {
            let table = &batch.block_tables[batch.table_start[s] as usize..batch.table_start[s + 1] as usize];
            for t in batch.query_start[s] as usize..batch.query_start[s + 1] as usize {
                let end = batch.positions[t] as usize + 1;
                let start = attention.sliding_window.map_or(0, |w| end.saturating_sub(w));
                for h in 0..heads {
                    let kv_head = h / (heads / attention.num_kv_heads);
                    let q = &qkv.row(t)[h * dim..][..dim];
                    let at = |p: usize| kv.at(layer, table[p / block_size] as usize * block_size + p % block_size, kv_head);
                    let scores: Vec<f32> = (start..end).map(|p| dot(q, &kv.keys[at(p)..][..dim]) * attention.scale).collect();
                    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let weights: Vec<f32> = scores.iter().map(|s| (s - max).exp()).collect();
                    let total: f32 = weights.iter().sum();
                    let o = &mut out.as_mut_slice()[(t * heads + h) * dim..][..dim];
                    o.fill(0.0);
                    for (p, w) in (start..end).zip(&weights) {
                        o.iter_mut().zip(&kv.values[at(p)..][..dim]).for_each(|(o, v)| *o += w / total * v);
                    }
                }
            }
        }
    }

    fn gather_logits_rows(&self, batch: &RaggedBatch, x: &CpuBuffer, delta: Option<&CpuBuffer>, out: &mut CpuBuffer) {
        out.reshape(batch.logits_rows.len(), x.cols());
        for (o, &row) in out.as_mut_slice().chunks_exact_mut(x.cols()).zip(&batch.logits_rows) {
            o.copy_from_slice(x.row(row as usize));
            if let Some(delta) = delta {
                o.iter_mut().zip(delta.row(row as usize)).for_each(|(o, d)| *o += d);
            }
        }
    }

    fn sample(&self, logits: &CpuBuffer, requests: &[&SampleRequest]) -> Result<Vec<SampledToken>, BackendError> {
        Ok(requests.iter().enumerate().map(|(i, request)| sampling::sample(logits.row(i), request)).collect())
    }
}
