//! What every decoder-only model has in common: an embedding, a stack of layers, a norm and a head.

use std::ops::Range;

use super::{ModelConfig, parts::Norm};
use crate::{
    backend::{Backend, KvLayout, RopeTable},
    weights::{Cut, Loader, WeightsError},
};

/// A loaded model, or a pipeline stage of one.
pub trait Model<B: Backend>: Send {
    fn vocab_size(&self) -> usize;

    /// What this stage's layers need of a cache of `num_blocks` blocks.
    fn kv_layout(&self, num_blocks: usize, block_size: usize) -> KvLayout;

    /// Runs the layers over the batch and writes its keys and values to `kv`.
    ///
    /// The first stage fills `hidden` from the batch's tokens, later ones take it over from the stage before. The last stage writes
    /// one row of `logits` per row that the batch wants; `None` where it wants none.
    fn forward(&mut self, backend: &B, batch: &B::Batch, kv: &mut B::KvCache, hidden: &mut Hidden<B>, logits: Option<&mut B::Buffer>);
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
    pub(super) fn add_norm(&mut self, norm: &Norm<B>) {
        if self.has_delta {
            self.backend.add_rms_norm(&mut self.hidden.residual, &self.hidden.delta, &norm.weight, norm.eps, &mut self.scratch.normed);
        } else {
            self.backend.rms_norm(&self.hidden.residual, &norm.weight, norm.eps, &mut self.scratch.normed);
        }
        self.has_delta = true;
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

/// Where tensors of one part of the model are found, and for whom they are loaded.
pub(super) struct Scope<'a, B: Backend> {
    pub(super) config: &'a ModelConfig,
    pub(super) loader: Loader<'a>,
    backend: &'a B,
    prefix: String,
}

impl<'a, B: Backend> Scope<'a, B> {
    pub(super) fn at(&self, name: &str) -> Self {
        Self { config: self.config, loader: self.loader, backend: self.backend, prefix: self.path(name) }
    }

    pub(super) fn norm(&self, name: &str, len: usize) -> Result<Norm<B>, WeightsError> {
        let name = self.path(&format!("{name}.weight"));
        let tensor = self.loader.vector(&name, len, Cut::None)?;
        let weight = self.backend.vector(&[tensor.view()]).map_err(|reason| WeightsError::Backend { tensor: name, reason })?;
        Ok(Norm { weight, eps: self.config.rms_norm_eps })
    }

    /// The matrices `names` of (name, rows), stacked by rows.
    pub(super) fn matrix(&self, names: &[(&str, usize)], cols: usize, cut: Cut) -> Result<B::Matrix, WeightsError> {
        let load = |(name, rows): &(&str, usize)| self.loader.matrix(&self.path(&format!("{name}.weight")), [*rows, cols], cut);
        let tensors = names.iter().map(load).collect::<Result<Vec<_>, _>>()?;
        let views: Vec<_> = tensors.iter().map(|t| t.view()).collect();
        self.backend.matrix(&views).map_err(|reason| WeightsError::Backend { tensor: self.path(names[0].0), reason })
    }

    /// The biases that belong to such matrices.
    pub(super) fn biases(&self, names: &[(&str, usize)], cut: Cut) -> Result<B::Vector, WeightsError> {
        // A matrix cut by columns gives every rank the whole output.
        let cut = if cut == Cut::Rows { Cut::Rows } else { Cut::None };
        let load = |(name, len): &(&str, usize)| self.loader.vector(&self.path(&format!("{name}.bias")), *len, cut);
        let tensors = names.iter().map(load).collect::<Result<Vec<_>, _>>()?;
        let views: Vec<_> = tensors.iter().map(|t| t.view()).collect();
        self.backend.vector(&views).map_err(|reason| WeightsError::Backend { tensor: self.path(names[0].0), reason })
    }

    fn path(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.into() } else { format!("{}.{name}", self.prefix) }
    }
}

pub(super) struct Decoder<B: Backend, L> {
    layers: Vec<L>,
    rope: RopeTable<B::Vector>,
    /// On the first stage; on the last one too where the head is tied to it.
    embedding: Option<B::Matrix>,
    is_first: bool,
    /// On the last stage.
    head: Option<Head<B>>,
    scratch: Scratch<B>,
    vocab_size: usize,
    /// Of this rank.
    num_kv_heads: usize,
    head_dim: usize,
}

struct Head<B: Backend> {
    norm: Norm<B>,
    /// `None` where the embedding table serves.
    weight: Option<B::Matrix>,
    /// The rows whose logits are wanted, before and after the norm.
    rows: B::Buffer,
    normed: B::Buffer,
}

impl<B: Backend, L: Layer<B>> Decoder<B, L> {
    pub(super) fn load(config: &ModelConfig, loader: Loader<'_>, backend: &B, layers: Range<usize>) -> Result<Self, WeightsError> {
        let root = Scope { config, loader, backend, prefix: String::new() };
        let model = root.at("model");
        let (is_first, is_last) = (layers.start == 0, layers.end == config.num_layers);
        let vocab = config.vocab_size;
        let table = || model.matrix(&[("embed_tokens", vocab)], config.hidden_size, Cut::None);
        let head = || {
            Ok(Head {
                norm: model.norm("norm", config.hidden_size)?,
                weight: if config.tie_word_embeddings {
                    None
                } else {
                    Some(root.matrix(&[("lm_head", vocab)], config.hidden_size, Cut::None)?)
                },
                rows: backend.buffer(),
                normed: backend.buffer(),
            })
        };
        Ok(Self {
            layers: layers.map(|i| L::load(&model.at(&format!("layers.{i}")), i)).collect::<Result<_, _>>()?,
            rope: RopeTable { inv_freq: backend.vector_f32(&config.rope.inv_freq()), rotary_dim: config.rope.rotary_dim, scale: 1.0 },
            embedding: if is_first || (is_last && config.tie_word_embeddings) { Some(table()?) } else { None },
            is_first,
            head: if is_last { Some(head()?) } else { None },
            scratch: Scratch { normed: backend.buffer(), wide: backend.buffer(), narrow: backend.buffer() },
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

    fn kv_layout(&self, num_blocks: usize, block_size: usize) -> KvLayout {
        KvLayout { num_layers: self.layers.len(), num_blocks, block_size, num_kv_heads: self.num_kv_heads, head_dim: self.head_dim }
    }

    fn forward(&mut self, backend: &B, batch: &B::Batch, kv: &mut B::KvCache, hidden: &mut Hidden<B>, logits: Option<&mut B::Buffer>) {
        if let (true, Some(table)) = (self.is_first, &self.embedding) {
            backend.embed(batch, table, &mut hidden.residual);
        }
        let (rope, scratch) = (&self.rope, &mut self.scratch);
        let mut step = Step { backend, batch, rope, kv, layer: 0, hidden, scratch, has_delta: !self.is_first };
        for (index, layer) in self.layers.iter().enumerate() {
            step.layer = index;
            layer.forward(&mut step);
        }
        if let (Some(head), Some(logits)) = (&mut self.head, logits) {
            let delta = step.has_delta.then_some(&step.hidden.delta);
            backend.gather_logits_rows(batch, &step.hidden.residual, delta, &mut head.rows);
            backend.rms_norm(&head.rows, &head.norm.weight, head.norm.eps, &mut head.normed);
            if let Some(weight) = head.weight.as_ref().or(self.embedding.as_ref()) {
                backend.linear(&head.normed, weight, None, logits);
            }
        }
    }
}
