//! Gemma 2: the layer of Gemma 3 without norms of queries and keys, with soft caps, and with every other layer sliding.

use super::{
    ModelConfig,
    architecture::Architecture,
    fields::{ConfigError, Fields},
    gemma3,
};

pub(super) const ARCHITECTURE: Architecture = Architecture {
    defaults: r#"{
        "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": true, "sliding_window": 4096,
        "sliding_window_pattern": 2, "query_pre_attn_scalar": 256, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0
    }"#,
    configure,
    ..Architecture::COMMON
};

pub(super) use gemma3::Layer;

fn configure(fields: &Fields, config: &mut ModelConfig) -> Result<(), ConfigError> {
    gemma3::configure_common(fields, config)
}
