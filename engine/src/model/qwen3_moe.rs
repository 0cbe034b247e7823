//! Qwen3-MoE: Qwen3 in which some layers, mostly all, have a mixture of experts in place of the MLP.

use super::{
    ModelConfig,
    architecture::Architecture,
    config::ExpertsConfig,
    fields::{ConfigError, Fields},
    pre_norm::PreNorm,
};
use crate::backend::Routing;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    aliases: &[("num_local_experts", "num_experts")],
    defaults: r#"{"use_sliding_window": false, "decoder_sparse_step": 1, "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768}"#,
    configure,
    ..Architecture::COMMON
};

pub(super) type Layer<B> = PreNorm<B>;

fn configure(fields: &Fields, config: &mut ModelConfig) -> Result<(), ConfigError> {
    config.qk_norm = true;
    let num_experts = fields.count("num_experts")?;
    let step = fields.count("decoder_sparse_step")?;
    let dense = fields.optional::<Vec<usize>>("mlp_only_layers")?.unwrap_or_default();
    config.experts = Some(ExpertsConfig {
        num_experts,
        intermediate_size: fields.count("moe_intermediate_size")?,
        routing: Routing { top_k: ExpertsConfig::top_k(fields, num_experts)?, renormalize: fields.flag("norm_topk_prob")? },
        layers: (0..config.num_layers).map(|layer| !dense.contains(&layer) && (layer + 1).is_multiple_of(step)).collect(),
    });
    Ok(())
}
