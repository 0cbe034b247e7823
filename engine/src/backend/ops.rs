//! The trait that model code is written over.
//! One call is one fused kernel of a GPU; all activations are `[rows, cols]`, one row per token of the ragged batch, row-major.

use super::{Activation, AttentionConfig, BackendError, Experts, KvLayout, MatrixView, Norm, QkNorm, RaggedBatch, RopeTable, TensorView};
use crate::{
    sampling::{SampledToken, ScoredToken},
    scheduler::{BlockCopy, BlockTransfer, SampleRequest},
};

/// A device and its kernels. Model code is written once over this trait.
///
/// Operations are issued in program order; a device may run them later, but in that order. Only [`Backend::read_sampled`],
/// [`Backend::score`] and [`Backend::read_rows`] return values to the host. What fails in an operation that returns no error is kept for the
/// next that does, and nothing is issued in between. Shapes are the caller's duty; a backend panics on a mismatch.
pub trait Backend: Send + Sync + 'static {
    /// A weight matrix `[out_features, in_features]`, packed as the device wants it.
    type Matrix: Send + Sync;
    /// Matrices of one shape, one for each expert of a layer.
    type Matrices: Send + Sync;
    /// A norm's scale or a bias.
    type Vector: Send + Sync;
    /// Activations `[rows, cols]`. Storage grows to the largest size seen and is kept.
    type Buffer: Send;
    /// Keys and values of all layers.
    type KvCache: Send;
    /// The same in memory of the host.
    type HostKvCache: Send;
    /// A [`RaggedBatch`] where the device can read it.
    type Batch: Send;
    /// Tokens that were chosen, which may still be on the device.
    type Sampled: Send;

    /// "cpu" or "cuda", for messages.
    fn name(&self) -> &'static str;

    /// Stacks `parts` by rows into one matrix (q, k and v; gate and up), so that one product computes all of them. Parts may differ
    /// in their encoding, and each keeps its own.
    ///
    /// # Errors
    /// When the parts differ in columns, are not what their shape says, or cannot be used on this device.
    fn matrix(&self, parts: &[MatrixView<'_>]) -> Result<Self::Matrix, BackendError>;

    /// Puts the experts' matrices together, where a device wants all of them in one place.
    ///
    /// # Errors
    /// When the device has no room, or cannot use matrices that differ as these do.
    fn matrices(&self, experts: Vec<Self::Matrix>) -> Result<Self::Matrices, BackendError>;

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

    /// Makes blocks hold in all layers what others hold, one copy after the other: what a later one reads, an earlier one may have written.
    fn copy_blocks(&self, kv: &mut Self::KvCache, copies: &[BlockCopy]);

    /// Memory of the host for `layout.num_blocks` blocks, each of which holds what a block of a cache of that shape does.
    ///
    /// # Errors
    /// When memory is short; the message says how many bytes were asked for.
    fn host_kv_cache(&self, layout: KvLayout) -> Result<Self::HostKvCache, BackendError>;

    /// Copies blocks to the host, all layers of each. In program order with all other operations, as if done at once.
    fn offload(&self, kv: &Self::KvCache, host: &mut Self::HostKvCache, blocks: &[BlockTransfer]);

    /// Copies blocks back. In program order with all other operations, as if done at once.
    fn onload(&self, kv: &mut Self::KvCache, host: &Self::HostKvCache, blocks: &[BlockTransfer]);

    fn batch(&self, batch: RaggedBatch) -> Self::Batch;

    /// Runs a model's whole pass over a batch. A device may record what `run` issues and issue the record again for later batches of the
    /// same form, without `run`: it must issue the same operations on the same buffers for every batch of a form.
    fn pass(&self, _batch: &Self::Batch, run: &mut dyn FnMut()) {
        run();
    }

    /// `out[t] = table[tokens[t]] * scale`; shape `[tokens, in_features]`. The scale is rounded to the type that the device computes in, as
    /// models that scale their embeddings were trained.
    fn embed(&self, batch: &Self::Batch, table: &Self::Matrix, scale: f32, out: &mut Self::Buffer);

    /// `out = norm(x)`, row by row.
    fn norm(&self, x: &Self::Buffer, norm: &Norm<Self::Vector>, out: &mut Self::Buffer);

    /// `x += delta`, then `out = norm(x)`.
    fn add_norm(&self, x: &mut Self::Buffer, delta: &Self::Buffer, norm: &Norm<Self::Vector>, out: &mut Self::Buffer);

    /// `x += delta`.
    fn add(&self, x: &mut Self::Buffer, delta: &Self::Buffer);

    /// `out = x * weight^T + bias`; `[rows, in] -> [rows, out]`.
    fn linear(&self, x: &Self::Buffer, weight: &Self::Matrix, bias: Option<&Self::Vector>, out: &mut Self::Buffer);

    /// A product whose result is chosen from: `[rows, vocabulary]` in f32, on devices whose activations are narrower too.
    fn logits(&self, x: &Self::Buffer, weight: &Self::Matrix, out: &mut Self::Buffer) {
        self.linear(x, weight, None, out);
    }

    /// `x = f(x)`, element by element.
    fn activate(&self, f: Activation, x: &mut Self::Buffer);

    /// `out = f(x[.., ..n]) * x[.., n..]` for x of `2n` columns.
    fn gated_activate(&self, f: Activation, x: &Self::Buffer, out: &mut Self::Buffer);

    /// `x = cap * tanh(x / cap)`, element by element.
    fn soft_cap(&self, x: &mut Self::Buffer, cap: f32);

    /// A mixture of experts: each row of `x` goes through the experts that its row of `logits` (`[rows, experts]`) is routed to, and `out` is
    /// their weighted sum, in the order of the experts. See [`Experts`].
    fn experts(&self, x: &Self::Buffer, logits: &Self::Buffer, experts: &Experts<Self::Matrices>, out: &mut Self::Buffer);

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

    /// The rows of `x`, each scaled to length 1 where `normalize` says so. Waits for the device.
    ///
    /// # Errors
    /// When the device failed in any operation since the last call.
    fn read_rows(&self, x: &Self::Buffer, normalize: bool) -> Result<Vec<Vec<f32>>, BackendError>;

    /// Chooses one token per row of `logits`. The device may do so later, in program order; a batch that follows may refer to the tokens
    /// ([`RaggedBatch::from_previous`]) before the host has read them.
    ///
    /// # Errors
    /// When the device cannot begin.
    fn sample(&self, logits: &Self::Buffer, requests: &[&SampleRequest]) -> Result<Self::Sampled, BackendError>;

    /// The tokens of an earlier [`Backend::sample`]. Waits for the device to have chosen them, not for what was issued later.
    ///
    /// # Errors
    /// When the device failed in any operation up to there.
    fn read_sampled(&self, sampled: Self::Sampled) -> Result<Vec<SampledToken>, BackendError>;

    /// Whether all that was issued since the last call that returns errors could be. Waits for nothing.
    ///
    /// # Errors
    /// The first that could not.
    fn check(&self) -> Result<(), BackendError> {
        Ok(())
    }

    /// Waits for everything that was issued.
    ///
    /// # Errors
    /// When the device failed in any operation since the last call.
    fn finish(&self) -> Result<(), BackendError> {
        Ok(())
    }

    /// How many steps may be issued before the tokens of the first must be read: 2 where the next step can be prepared while one runs.
    fn max_steps_in_flight(&self) -> usize {
        1
    }

    /// How likely each row of `logits` makes a given token: (token, number of likeliest ones to report beside it). Waits for the device.
    ///
    /// # Errors
    /// When the device failed in any operation since the last call.
    fn score(&self, logits: &Self::Buffer, targets: &[(u32, u32)]) -> Result<Vec<ScoredToken>, BackendError>;
}
