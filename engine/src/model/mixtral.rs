//! Mixtral: Mistral whose every MLP is a mixture of experts; the weights of the chosen ones sum to 1.

use super::{
    ModelConfig,
    architecture::{Architecture, Names},
    config::ExpertsConfig,
    fields::{ConfigError, Fields},
    pre_norm::PreNorm,
};
use crate::backend::Routing;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    names: Names { experts: "block_sparse_moe", expert: ["w1", "w3", "w2"], ..Names::COMMON },
    aliases: &[("num_experts", "num_local_experts")],
    defaults: r#"{"num_local_experts": 8, "num_experts_per_tok": 2}"#,
    configure,
};

pub(super) type Layer<B> = PreNorm<B>;

fn configure(fields: &Fields, config: &mut ModelConfig) -> Result<(), ConfigError> {
    let num_experts = fields.count("num_local_experts")?;
    config.experts = Some(ExpertsConfig {
        num_experts,
        intermediate_size: config.intermediate_size,
        routing: Routing { top_k: ExpertsConfig::top_k(fields, num_experts)?, renormalize: true },
        layers: vec![true; config.num_layers],
    });
    Ok(())
}
