//! Qwen3 (dense): grouped-query attention with an RMS norm on every query and key head, gated MLP.

use super::{ModelConfig, architecture::Architecture, fields::ConfigError, fields::Fields, pre_norm::PreNorm};

pub(super) const ARCHITECTURE: Architecture = Architecture {
    defaults: r#"{"use_sliding_window": false, "max_window_layers": 28, "head_dim": 128}"#,
    configure,
    ..Architecture::COMMON
};

pub(super) type Layer<B> = PreNorm<B>;

fn configure(_: &Fields, config: &mut ModelConfig) -> Result<(), ConfigError> {
    config.qk_norm = true;
    Ok(())
}
