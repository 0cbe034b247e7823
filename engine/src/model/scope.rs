//! Where tensors of one part of a model are found, and for whom they are loaded.

use super::{ModelConfig, architecture::Names, config::NormKind};
use crate::{
    backend::{Backend, BackendError, MatrixView, Norm, TensorView},
    weights::{Cut, Loader, WeightsError},
};

pub(super) struct Scope<'a, B: Backend> {
    pub(super) config: &'a ModelConfig,
    pub(super) loader: Loader<'a>,
    pub(super) names: &'static Names,
    backend: &'a B,
    prefix: String,
}

impl<'a, B: Backend> Scope<'a, B> {
    /// The whole checkpoint.
    pub(super) fn new(config: &'a ModelConfig, loader: Loader<'a>, names: &'static Names, backend: &'a B) -> Self {
        Self { config, loader, names, backend, prefix: String::new() }
    }

    pub(super) fn at(&self, name: &str) -> Self {
        let prefix = if name.is_empty() { self.prefix.clone() } else { self.path(name) };
        Self { config: self.config, loader: self.loader, names: self.names, backend: self.backend, prefix }
    }

    /// The first of `names` under which there is a matrix, or else the first of all, for the message that it is missing.
    pub(super) fn first_of(&self, names: &'static [&'static str], below: &str) -> &'static str {
        let is_there = |name: &&&str| self.loader.contains(&self.at(name).path(&weight(below)));
        names.iter().find(is_there).or(names.first()).copied().unwrap_or_default()
    }

    pub(super) fn norm(&self, name: &str, len: usize) -> Result<Norm<B::Vector>, WeightsError> {
        let (weight, eps) = (self.norm_weight(name, len)?, self.config.norm_eps);
        match self.config.norm_kind {
            NormKind::Rms | NormKind::RmsPlusOne => Ok(Norm::Rms { weight, eps }),
            NormKind::Layer => Ok(Norm::Layer { weight, bias: self.biases(&[(name, len)], Cut::None)?, eps }),
        }
    }

    pub(super) fn norm_weight(&self, name: &str, len: usize) -> Result<B::Vector, WeightsError> {
        let tensor = self.loader.vector(&self.path(&weight(name)), len, Cut::None)?;
        if self.config.norm_kind == NormKind::RmsPlusOne {
            let values: Vec<f32> = tensor.view().to_f32().into_iter().map(|weight| 1.0 + weight).collect();
            return Ok(self.backend.vector_f32(&values));
        }
        self.vector(name, &[tensor.view()])
    }

    /// The matrices `names` of (name, rows), stacked by rows. One of the name "" is this scope's own.
    pub(super) fn matrix(&self, names: &[(&str, usize)], cols: usize, cut: Cut) -> Result<B::Matrix, WeightsError> {
        let load = |(name, rows): &(&str, usize)| self.loader.matrix(&self.path(&weight(name)), [*rows, cols], cut);
        let tensors = names.iter().map(load).collect::<Result<Vec<_>, _>>()?;
        let views: Vec<_> = tensors.iter().map(|t| t.view()).collect();
        let matrix = self.packed(|part| names[part].0, self.backend.matrix(&views));
        names.iter().for_each(|(name, _)| self.loader.release(&self.path(&weight(name))));
        matrix
    }

    /// The experts' matrices together.
    pub(super) fn experts(&self, matrices: Vec<B::Matrix>) -> Result<B::Matrices, WeightsError> {
        self.backend.matrices(matrices).map_err(|reason| WeightsError::Backend { tensor: self.path("experts"), reason })
    }

    /// The biases that belong to such matrices.
    pub(super) fn biases(&self, names: &[(&str, usize)], cut: Cut) -> Result<B::Vector, WeightsError> {
        // A matrix cut by columns gives every rank the whole output.
        let cut = if cut == Cut::Rows { Cut::Rows } else { Cut::None };
        let load = |(name, len): &(&str, usize)| self.loader.vector(&self.path(&format!("{name}.bias")), *len, cut);
        let tensors = names.iter().map(load).collect::<Result<Vec<_>, _>>()?;
        let views: Vec<_> = tensors.iter().map(|t| t.view()).collect();
        self.vector(names[0].0, &views)
    }

    /// A rank's rows of one matrix as blocks of `block` rows, put in `order`.
    pub(super) fn matrix_in_order(&self, name: &str, shape: [usize; 2], block: usize, order: &[usize]) -> Result<B::Matrix, WeightsError> {
        let tensor = self.loader.matrix(&self.path(&weight(name)), shape, Cut::Rows)?;
        let MatrixView::Plain(view) = tensor.view() else {
            let reason = BackendError::Device("quantised heads cannot be put in order".into());
            return Err(WeightsError::Backend { tensor: self.path(name), reason });
        };
        let bytes = block * view.shape[1] * view.dtype.size();
        let part = |&i: &usize| TensorView { shape: [block, view.shape[1]], bytes: &view.bytes[i * bytes..][..bytes], ..view }.into();
        let matrix = self.packed(|_| name, self.backend.matrix(&order.iter().map(part).collect::<Vec<_>>()));
        self.loader.release(&self.path(&weight(name)));
        matrix
    }

    /// The bias that belongs to such a matrix.
    pub(super) fn bias_in_order(&self, name: &str, len: usize, block: usize, order: &[usize]) -> Result<B::Vector, WeightsError> {
        let tensor = self.loader.vector(&self.path(&format!("{name}.bias")), len, Cut::Rows)?;
        let view = tensor.view();
        let bytes = block * view.dtype.size();
        let part = |&i: &usize| TensorView { shape: [1, block], bytes: &view.bytes[i * bytes..][..bytes], ..view };
        self.vector(name, &order.iter().map(part).collect::<Vec<_>>())
    }

    fn packed<'n>(
        &self,
        name_of_part: impl Fn(usize) -> &'n str,
        matrix: Result<B::Matrix, BackendError>,
    ) -> Result<B::Matrix, WeightsError> {
        matrix.map_err(|reason| {
            let part = if let BackendError::Weight { part, .. } = reason { part } else { 0 };
            WeightsError::Backend { tensor: self.path(name_of_part(part)), reason }
        })
    }

    fn vector(&self, name: &str, views: &[TensorView<'_>]) -> Result<B::Vector, WeightsError> {
        self.backend.vector(views).map_err(|reason| WeightsError::Backend { tensor: self.path(name), reason })
    }

    fn path(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.into() } else { format!("{}.{name}", self.prefix) }
    }
}

fn weight(name: &str) -> String {
    if name.is_empty() { "weight".into() } else { format!("{name}.weight") }
}
