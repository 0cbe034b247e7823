//! What every decoder-only model has in common: an embedding, a stack of layers, a norm and a head.

use std::ops::Range;

pub(super) use super::scope::Scope;
use super::{ModelConfig, PoolingConfig, RopeConfig, architecture::Names};
use crate::{
    backend::{Backend, KvLayout, Norm, RopeTable},
    weights::{Cut, Loader, WeightsError},
};

/// A loaded model, or a pipeline stage of one.
pub trait Model<B: Backend>: Send {
    fn vocab_size(&self) -> usize;

    /// Set where the model embeds: what it writes as `logits` are then the final states of the rows, `[rows, hidden_size]`.
    fn pooling(&self) -> Option<PoolingConfig>;

    /// What this stage's layers need of a cache of `num_blocks` blocks.
    fn kv_layout(&self, num_blocks: usize, block_size: usize) -> KvLayout;

    /// Runs the layers over the batch and writes its keys and values to `kv`.
    ///
    /// The first stage fills `hidden` from the batch's tokens, later ones take it over from the stage before. The last stage writes
    /// one row of `logits` per row that the batch wants; `None` where it wants none.
    fn forward(&mut self, backend: &B, batch: &B::Batch, kv: &mut B::KvCache, hidden: &mut Hidden<B>, logits: Option<&mut B::Buffer>);

    /// The last stage's logits of the rows that `batch` wants, of what [`Model::forward`] left in `hidden`: for rows that are too many to have
    /// their logits at once.
    fn logits(&mut self, backend: &B, batch: &B::Batch, hidden: &Hidden<B>, logits: &mut B::Buffer);
}

/// What passes from layer to layer and from stage to stage, `[tokens, hidden_size]` each: the layer's input is their sum, which the
/// next norm computes on its way.
pub struct Hidden<B: Backend> {
    pub residual: B::Buffer,
    pub delta: B::Buffer,
}

impl<B: Backend> Hidden<B> {
    pub fn new(backend: &B) -> Self {
        Self { residual: backend.buffer(), delta: backend.buffer() }
    }
}

/// One architecture's layer.
pub(super) trait Layer<B: Backend>: Send + Sized {
    /// `scope` is the layer's own; `index` its place in the whole model.
    fn load(scope: &Scope<'_, B>, index: usize) -> Result<Self, WeightsError>;

    fn forward(&self, step: &mut Step<'_, B>);
}

/// Everything a layer works with in one pass.
pub(super) struct Step<'a, B: Backend> {
    pub(super) backend: &'a B,
    pub(super) batch: &'a B::Batch,
    pub(super) rope: &'a RopeTable<B::Vector>,
    pub(super) kv: &'a mut B::KvCache,
    /// Index into `kv`, which holds this stage's layers only.
    pub(super) layer: usize,
    pub(super) hidden: &'a mut Hidden<B>,
    pub(super) scratch: &'a mut Scratch<B>,
    /// Whether `hidden.delta` waits to be added.
    has_delta: bool,
}

impl<B: Backend> Step<'_, B> {
    /// `residual += delta`, then `scratch.normed = norm(residual)`.
    pub(super) fn add_norm(&mut self, norm: &Norm<B::Vector>) {
        if self.has_delta {
            self.backend.add_norm(&mut self.hidden.residual, &self.hidden.delta, norm, &mut self.scratch.normed);
        } else {
            self.backend.norm(&self.hidden.residual, norm, &mut self.scratch.normed);
        }
        self.has_delta = true;
    }

    /// `scratch.normed = norm(residual)`, then `residual += delta`: what follows works on the same input as what made `delta`.
    pub(super) fn norm_then_add(&mut self, norm: &Norm<B::Vector>) {
        self.backend.norm(&self.hidden.residual, norm, &mut self.scratch.normed);
        self.backend.add(&mut self.hidden.residual, &self.hidden.delta);
    }

    /// `delta = norm(delta)`.
    pub(super) fn norm_delta(&mut self, norm: &Norm<B::Vector>) {
        self.backend.norm(&self.hidden.delta, norm, &mut self.scratch.normed);
        std::mem::swap(&mut self.hidden.delta, &mut self.scratch.normed);
    }
}

/// Activations that live within one layer; all layers share them.
pub(super) struct Scratch<B: Backend> {
    pub(super) normed: B::Buffer,
    /// Queries, keys and values; or gate and up.
    pub(super) wide: B::Buffer,
    /// What attention or activation made of `wide`.
    pub(super) narrow: B::Buffer,
}

pub(super) struct Decoder<B: Backend, L> {
    layers: Vec<L>,
    /// Of layers that see all positions, and of those with a sliding window.
    ropes: [RopeTable<B::Vector>; 2],
    /// Per layer: whether it has a sliding window.
    slides: Vec<bool>,
    /// On the first stage; on the last one too where the head is tied to it.
    embedding: Option<B::Matrix>,
    embedding_scale: f32,
    is_first: bool,
    /// On the last stage.
    head: Option<Head<B>>,
    scratch: Scratch<B>,
    pooling: Option<PoolingConfig>,
    vocab_size: usize,
    /// Of this rank.
    num_kv_heads: usize,
    head_dim: usize,
}

struct Head<B: Backend> {
    norm: Norm<B::Vector>,
    /// `None` where the embedding table serves, and in models that embed.
    weight: Option<B::Matrix>,
    soft_cap: Option<f32>,
    /// The rows whose logits are wanted, before and after the norm.
    rows: B::Buffer,
    normed: B::Buffer,
}

impl<B: Backend, L: Layer<B>> Decoder<B, L> {
    pub(super) fn load(
        config: &ModelConfig,
        names: &'static Names,
        loader: Loader<'_>,
        backend: &B,
        layers: Range<usize>,
    ) -> Result<Self, WeightsError> {
        let root = Scope::new(config, loader, names, backend);
        let model = root.at(root.first_of(names.roots, names.embedding));
        let (is_first, is_last) = (layers.start == 0, layers.end == config.num_layers);
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let head = || {
            let weight = || root.matrix(&[(root.first_of(names.heads, ""), vocab)], hidden, Cut::None);
            Ok(Head {
                norm: model.norm(names.final_norm, hidden)?,
                weight: if config.tie_word_embeddings || config.pooling.is_some() { None } else { Some(weight()?) },
                soft_cap: config.logits_soft_cap,
                rows: backend.buffer(),
                normed: backend.buffer(),
            })
        };
        let needs_table = is_first || (is_last && config.tie_word_embeddings && config.pooling.is_none());
        let rope = |rope: &RopeConfig| RopeTable {
            inv_freq: backend.vector_f32(&rope.inv_freq()),
            rotary_dim: rope.rotary_dim,
            scale: rope.attention_factor,
        };
        Ok(Self {
            slides: layers.clone().map(|i| config.sliding_windows[i].is_some()).collect(),
            layers: layers.map(|i| L::load(&model.at(&format!("{}.{i}", names.layers)), i)).collect::<Result<_, _>>()?,
            ropes: [rope(&config.rope), rope(config.local_rope.as_ref().unwrap_or(&config.rope))],
            embedding: if needs_table { Some(model.matrix(&[(names.embedding, vocab)], hidden, Cut::None)?) } else { None },
            embedding_scale: config.embedding_scale,
            is_first,
            head: if is_last { Some(head()?) } else { None },
            scratch: Scratch { normed: backend.buffer(), wide: backend.buffer(), narrow: backend.buffer() },
            pooling: config.pooling,
            vocab_size: vocab,
            num_kv_heads: config.num_kv_heads / loader.group_size(),
            head_dim: config.head_dim,
        })
    }
}

impl<B: Backend, L: Layer<B>> Model<B> for Decoder<B, L> {
    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn pooling(&self) -> Option<PoolingConfig> {
        self.pooling
    }

    fn kv_layout(&self, num_blocks: usize, block_size: usize) -> KvLayout {
        KvLayout { num_layers: self.layers.len(), num_blocks, block_size, num_kv_heads: self.num_kv_heads, head_dim: self.head_dim }
    }

    fn forward(&mut self, backend: &B, batch: &B::Batch, kv: &mut B::KvCache, hidden: &mut Hidden<B>, logits: Option<&mut B::Buffer>) {
        if let (true, Some(table)) = (self.is_first, &self.embedding) {
            backend.embed(batch, table, self.embedding_scale, &mut hidden.residual);
        }
        let (rope, scratch) = (&self.ropes[0], &mut self.scratch);
        let mut step = Step { backend, batch, rope, kv, layer: 0, hidden, scratch, has_delta: !self.is_first };
        for (index, (layer, slides)) in self.layers.iter().zip(&self.slides).enumerate() {
            (step.layer, step.rope) = (index, &self.ropes[usize::from(*slides)]);
            layer.forward(&mut step);
        }
        if let Some(logits) = logits {
            self.logits(backend, batch, hidden, logits);
        }
    }

    fn logits(&mut self, backend: &B, batch: &B::Batch, hidden: &Hidden<B>, logits: &mut B::Buffer) {
        let has_delta = !self.is_first || !self.layers.is_empty();
        if let Some(head) = &mut self.head {
            let delta = has_delta.then_some(&hidden.delta);
            backend.gather_logits_rows(batch, &hidden.residual, delta, &mut head.rows);
            if self.pooling.is_some() {
                backend.norm(&head.rows, &head.norm, logits);
                return;
            }
            backend.norm(&head.rows, &head.norm, &mut head.normed);
            if let Some(weight) = head.weight.as_ref().or(self.embedding.as_ref()) {
                backend.logits(&head.normed, weight, logits);
            }
            if let Some(cap) = head.soft_cap {
                backend.soft_cap(logits, cap);
            }
        }
    }
}
