//! Llama (2, 3 and what is built like them): grouped-query attention, gated MLP, optional biases.

use super::{architecture::Architecture, pre_norm::PreNorm};

pub(super) const ARCHITECTURE: Architecture = Architecture::COMMON;

pub(super) type Layer<B> = PreNorm<B>;
