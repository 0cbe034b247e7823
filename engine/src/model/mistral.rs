//! Mistral: Llama with a sliding window in every layer.

use super::{architecture::Architecture, pre_norm::PreNorm};

pub(super) const ARCHITECTURE: Architecture = Architecture { defaults: r#"{"sliding_window": 4096}"#, ..Architecture::COMMON };

pub(super) type Layer<B> = PreNorm<B>;
