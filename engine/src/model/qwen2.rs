//! Qwen2 and 2.5 (dense): Llama with biases of queries, keys and values, whatever the config says.

use super::{ModelConfig, architecture::Architecture, fields::ConfigError, fields::Fields, pre_norm::PreNorm};

pub(super) const ARCHITECTURE: Architecture =
    Architecture { defaults: r#"{"use_sliding_window": false, "max_window_layers": 28}"#, configure, ..Architecture::COMMON };

pub(super) type Layer<B> = PreNorm<B>;

fn configure(_: &Fields, config: &mut ModelConfig) -> Result<(), ConfigError> {
    (config.attention_bias, config.attention_output_bias) = (true, false);
    Ok(())
}
