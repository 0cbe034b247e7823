//! The operations a model is written over, and the devices that implement them.
//!
//! A small trait of fused operations, not a tensor library: what a fused kernel does on a GPU is one call here.
//! All activations are matrices of shape [rows, cols], one row per token of the ragged batch, row-major.

pub mod cpu;

use crate::{
    sampling::SampledToken,
    scheduler::{SampleRequest, StepPlan},
};

/// Element types as checkpoints name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    F32,
    F16,
    BF16,
}

/// A checkpoint tensor as it lies in the mapped file, or a rank's slice of it: little-endian, row-major.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    pub dtype: DType,
    /// `[rows, cols]`; `rows` is 1 for vectors.
    pub shape: [usize; 2],
    pub bytes: &'a [u8],
}

/// Where keys and values live: fixed when the engine starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvLayout {
    pub num_layers: usize,
    pub num_blocks: usize,
    /// Tokens in a block.
    pub block_size: usize,
    pub num_kv_heads: usize,
    pub head_dim: usize,
}

/// How attention of one layer behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionConfig {
    pub num_heads: usize,
    pub num_kv_heads: usize,
    pub head_dim: usize,
    /// Usually `head_dim^-0.5`.
    pub scale: f32,
    /// Number of latest positions a token sees, itself included; `None` sees all.
    pub sliding_window: Option<usize>,
}

/// The index arithmetic of one step, derived from the plan alone. All vectors are over the tokens of the batch unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RaggedBatch {
    pub tokens: Vec<u32>,
    pub positions: Vec<u32>,
    /// KV slot that each token writes: block * block_size + offset.
    pub slots: Vec<u32>,
    /// Per sequence, plus one: the rows of sequence `i` are `query_start[i]..query_start[i + 1]`.
    pub query_start: Vec<u32>,
    /// Per sequence: number of positions with KV after this step's writes.
    pub context_len: Vec<u32>,
    /// Block tables of all sequences, one after the other.
    pub block_tables: Vec<u32>,
    /// Per sequence, plus one: the table of sequence `i` is `block_tables[table_start[i]..table_start[i + 1]]`.
    pub table_start: Vec<u32>,
    /// Rows whose logits are wanted, in the plan's order.
    pub logits_rows: Vec<u32>,
}

impl RaggedBatch {
    pub fn new(plan: &StepPlan, block_size: usize) -> Self {
        let mut batch = Self { query_start: vec![0], table_start: vec![0], ..Self::default() };
        for sequence in &plan.sequences {
            for (i, &token) in sequence.tokens.iter().enumerate() {
                let position = sequence.start + i;
                let block = sequence.block_table[position / block_size].0;
                batch.tokens.push(token);
                batch.positions.push(position as u32);
                batch.slots.push(block * block_size as u32 + (position % block_size) as u32);
            }
            let end = sequence.start + sequence.tokens.len();
            let used_blocks = end.div_ceil(block_size);
            batch.block_tables.extend(sequence.block_table[..used_blocks].iter().map(|b| b.0));
            batch.table_start.push(batch.block_tables.len() as u32);
            batch.query_start.push(batch.tokens.len() as u32);
            batch.context_len.push(end as u32);
            if sequence.sample.is_some() {
                batch.logits_rows.push(batch.tokens.len() as u32 - 1);
            }
        }
        batch
    }

    pub fn num_tokens(&self) -> usize {
        self.tokens.len()
    }
}

/// A device and its kernels. Model code is written once over this trait.
///
/// Operations are issued in program order; a device may run them later, but in that order. Only [`Backend::sample`]
/// returns values to the host. Shapes are the caller's duty and are checked by debug assertions.
pub trait Backend: Send + Sync + 'static {
    /// A weight matrix `[out_features, in_features]`, packed as the device wants it.
    type Matrix: Send + Sync;
    /// A norm's scale or a bias.
    type Vector: Send + Sync;
    /// Activations `[rows, cols]`. Storage grows to the largest size seen and is kept.
    type Buffer: Send;
    /// Keys and values of all layers.
    type KvCache: Send;
    /// A [`RaggedBatch`] where the device can read it.
    type Batch: Send;

    /// "cpu" or "cuda", for messages.
    fn name(&self) -> &'static str;

    /// Stacks `parts` by rows into one matrix (q, k and v; gate and up), so that one product computes all of them.
    ///
    /// # Errors
    /// When the parts differ in columns, or their type cannot be used on this device.
    fn matrix(&self, parts: &[TensorView<'_>]) -> Result<Self::Matrix, BackendError>;

    /// # Errors
    /// When the type cannot be used on this device.
    fn vector(&self, parts: &[TensorView<'_>]) -> Result<Self::Vector, BackendError>;

    /// An f32 vector made by the engine itself, such as rotary frequencies.
    fn vector_f32(&self, values: &[f32]) -> Self::Vector;

    fn buffer(&self) -> Self::Buffer;

    /// # Errors
    /// When memory is short; the message says how many bytes were asked for.
    fn kv_cache(&self, layout: KvLayout) -> Result<Self::KvCache, BackendError>;

    /// Bytes that one block takes over all layers.
    fn kv_block_bytes(&self, layout: KvLayout) -> usize;

    fn batch(&self, batch: RaggedBatch) -> Self::Batch;

    /// `out[t] = table[tokens[t]]`; shape `[tokens, in_features]`.
    fn embed(&self, batch: &Self::Batch, table: &Self::Matrix, out: &mut Self::Buffer);

    /// `out = x / rms(x) * weight`, row by row.
    fn rms_norm(&self, x: &Self::Buffer, weight: &Self::Vector, eps: f32, out: &mut Self::Buffer);

    /// `x += delta`, then `out = rms_norm(x)`.
    fn add_rms_norm(&self, x: &mut Self::Buffer, delta: &Self::Buffer, weight: &Self::Vector, eps: f32, out: &mut Self::Buffer);

    /// `out = x * weight^T + bias`; `[rows, in] -> [rows, out]`.
    fn linear(&self, x: &Self::Buffer, weight: &Self::Matrix, bias: Option<&Self::Vector>, out: &mut Self::Buffer);

    /// `out = silu(x[.., ..n]) * x[.., n..]` for x of `2n` columns.
    fn silu_mul(&self, x: &Self::Buffer, out: &mut Self::Buffer);

    /// In place on rows of `[q heads | k heads | v heads]`: RMS norm of each q and k head where a weight is given, then rotary embedding
    /// (half-split pairs, as in Hugging Face's `rotate_half`), then keys and values are written to the cache at the batch's slots.
    #[allow(clippy::too_many_arguments)]
    fn rope_and_write_kv(
        &self,
        batch: &Self::Batch,
        qkv: &mut Self::Buffer,
        attention: &AttentionConfig,
        norms: Option<QkNorm<'_, Self::Vector>>,
        rope: &RopeTable<Self::Vector>,
        kv: &mut Self::KvCache,
        layer: usize,
    );

    /// Causal attention of every row's q heads over its sequence's cached positions; `out` is `[tokens, num_heads * head_dim]`.
    fn paged_attention(
        &self,
        batch: &Self::Batch,
        qkv: &Self::Buffer,
        attention: &AttentionConfig,
        kv: &Self::KvCache,
        layer: usize,
        out: &mut Self::Buffer,
    );

    /// `out[i] = x[logits_rows[i]]`, plus `delta` at the same rows where given.
    fn gather_logits_rows(&self, batch: &Self::Batch, x: &Self::Buffer, delta: Option<&Self::Buffer>, out: &mut Self::Buffer);

    /// Chooses one token per row of `logits`. Waits for the device.
    ///
    /// # Errors
    /// When the device failed in any operation since the last call.
    fn sample(&self, logits: &Self::Buffer, requests: &[&SampleRequest]) -> Result<Vec<SampledToken>, BackendError>;
}

/// Per-head norms of queries and keys (Qwen3).
pub struct QkNorm<'a, V> {
    pub q: &'a V,
    pub k: &'a V,
    pub eps: f32,
}

/// Rotary embedding: angle of pair `i` at position `p` is `p * inv_freq[i]`; cosine and sine are multiplied by `scale` (yarn's attention factor, else 1).
pub struct RopeTable<V> {
    /// `rotary_dim / 2` values.
    pub inv_freq: V,
    pub rotary_dim: usize,
    pub scale: f32,
}

#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    #[error("tensor parts have {found} columns where {expected} were expected")]
    Columns { expected: usize, found: usize },
    #[error("{bytes} bytes for {what} could not be allocated")]
    OutOfMemory { what: &'static str, bytes: usize },
    #[error("{0}")]
    Device(String),
}
