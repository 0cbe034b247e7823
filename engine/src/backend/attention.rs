//! How attention and rotary embedding of a layer behave, and where keys and values lie.
//! Plain parameters that a model hands to the backend with every call.

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
    /// Scores become `cap * tanh(score / cap)`.
    pub soft_cap: Option<f32>,
}

impl AttentionConfig {
    /// The first position that the token at `position` sees; the last is its own.
    pub fn first_seen(&self, position: usize) -> usize {
        self.sliding_window.map_or(0, |window| (position + 1).saturating_sub(window))
    }
}

/// Per-head RMS norms of queries and keys (Qwen3, Gemma 3).
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
