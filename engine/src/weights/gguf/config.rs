//! Metadata as the `config.json` that a Hugging Face folder of the same model has, so that there is one reader of configs.

use serde_json::{Map, Value, json};

use super::{Metadata, names::Naming};
use crate::weights::WeightsError;

/// llama.cpp's constant for the largest Gemma 3, whose queries are scaled differently; the file does not say it.
const GEMMA3_27B_LAYERS: u64 = 62;
/// In Gemma 3 every sixth layer sees all positions.
const GEMMA3_PATTERN: u64 = 6;

/// The naming of tensors, by the file's architecture.
pub(super) fn naming(metadata: &Metadata<'_>) -> Result<Naming, WeightsError> {
    Ok(match metadata.architecture() {
        "llama" if metadata.own_count("expert_count")?.unwrap_or(0) > 0 => Naming::Mixtral,
        "llama" => Naming::Llama,
        "qwen2" | "qwen3" => Naming::Qwen,
        "qwen3moe" => Naming::QwenMoe,
        "gemma3" => Naming::Gemma3,
        other => {
            let reason = format!("is \"{other}\"; known are llama, qwen2, qwen3, qwen3moe and gemma3");
            return Err(metadata.error("general.architecture", reason));
        }
    })
}

/// Dimensions of a query head.
pub(super) fn head_dim(metadata: &Metadata<'_>) -> Result<u64, WeightsError> {
    let derived = metadata.own_required_count("embedding_length")? / metadata.own_required_count("attention.head_count")?.max(1);
    Ok(metadata.own_count("attention.key_length")?.unwrap_or(derived))
}

/// What the file's tensors tell beside its metadata.
pub(super) struct TensorFacts {
    /// Rows of the embedding table.
    pub(super) vocab_size: u64,
    pub(super) has_head: bool,
    pub(super) has_attention_bias: bool,
    pub(super) has_mlp_bias: bool,
    /// By how much each rotary frequency is divided.
    pub(super) rope_factors: Option<Vec<f32>>,
}

pub(super) fn config(metadata: &Metadata<'_>, facts: &TensorFacts) -> Result<Value, WeightsError> {
    let naming = naming(metadata)?;
    let num_heads = metadata.own_required_count("attention.head_count")?;
    let num_layers = metadata.own_required_count("block_count")?;
    let head_dim = head_dim(metadata)?;
    let theta = metadata.own_f64("rope.freq_base")?;
    let mut config = json!({
        "architectures": [match naming {
            Naming::Llama => "LlamaForCausalLM",
            Naming::Mixtral => "MixtralForCausalLM",
            Naming::Qwen if metadata.architecture() == "qwen2" => "Qwen2ForCausalLM",
            Naming::Qwen => "Qwen3ForCausalLM",
            Naming::QwenMoe => "Qwen3MoeForCausalLM",
            Naming::Gemma3 => "Gemma3ForCausalLM",
        }],
        "model_type": match naming {
            Naming::Mixtral => "mixtral",
            Naming::QwenMoe => "qwen3_moe",
            Naming::Gemma3 => "gemma3_text",
            Naming::Llama | Naming::Qwen => metadata.architecture(),
        },
        "vocab_size": facts.vocab_size,
        "hidden_size": metadata.own_required_count("embedding_length")?,
        "intermediate_size": metadata.own_count("feed_forward_length")?.or(metadata.own_count("expert_feed_forward_length")?),
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads,
        "num_key_value_heads": metadata.own_count("attention.head_count_kv")?.unwrap_or(num_heads),
        "head_dim": head_dim,
        "rms_norm_eps": metadata.own_f64("attention.layer_norm_rms_epsilon")?,
        "max_position_embeddings": metadata.own_required_count("context_length")?,
        "tie_word_embeddings": !facts.has_head,
        "attention_bias": facts.has_attention_bias,
        "mlp_bias": facts.has_mlp_bias,
        "rope_theta": theta.unwrap_or(10_000.0),
        "rope_scaling": rope_scaling(metadata, facts)?,
        "bos_token_id": metadata.u32("tokenizer.ggml.bos_token_id")?,
        "eos_token_id": end_tokens(metadata)?,
    });
    let Some(fields) = config.as_object_mut() else { return Ok(config) };
    if let Some(rotary_dim) = metadata.own_count("rope.dimension_count")?.filter(|&dim| dim != head_dim) {
        fields.insert("partial_rotary_factor".into(), json!(rotary_dim as f64 / head_dim as f64));
    }
    match naming {
        Naming::Llama | Naming::Qwen => insert_window(metadata, fields)?,
        Naming::Mixtral => {
            insert_window(metadata, fields)?;
            fields.insert("num_local_experts".into(), json!(metadata.own_required_count("expert_count")?));
            fields.insert("num_experts_per_tok".into(), json!(metadata.own_required_count("expert_used_count")?));
        }
        Naming::QwenMoe => {
            fields.insert("num_experts".into(), json!(metadata.own_required_count("expert_count")?));
            fields.insert("num_experts_per_tok".into(), json!(metadata.own_required_count("expert_used_count")?));
            fields.insert("moe_intermediate_size".into(), json!(metadata.own_required_count("expert_feed_forward_length")?));
            fields.insert("norm_topk_prob".into(), json!(metadata.bool(&metadata.own_key("expert_weights_norm"))?.unwrap_or(true)));
            fields.insert("decoder_sparse_step".into(), json!(1));
            fields.insert("mlp_only_layers".into(), json!([]));
        }
        Naming::Gemma3 => insert_gemma3(metadata, fields, num_layers, head_dim)?,
    }
    Ok(config)
}

fn insert_window(metadata: &Metadata<'_>, fields: &mut Map<String, Value>) -> Result<(), WeightsError> {
    if let Some(window) = metadata.own_count("attention.sliding_window")?.filter(|&window| window > 0) {
        fields.insert("sliding_window".into(), json!(window));
        fields.insert("use_sliding_window".into(), json!(true));
    }
    Ok(())
}

fn insert_gemma3(metadata: &Metadata<'_>, fields: &mut Map<String, Value>, num_layers: u64, head_dim: u64) -> Result<(), WeightsError> {
    let embedding_length = metadata.own_required_count("embedding_length")?;
    let heads = metadata.own_required_count("attention.head_count")?.max(1);
    let scalar = if num_layers == GEMMA3_27B_LAYERS { embedding_length / heads } else { head_dim };
    let kind = |layer: u64| if (layer + 1).is_multiple_of(GEMMA3_PATTERN) { "full_attention" } else { "sliding_attention" };
    fields.insert("hidden_activation".into(), json!("gelu_pytorch_tanh"));
    fields.insert("query_pre_attn_scalar".into(), json!(scalar));
    fields.insert("sliding_window".into(), json!(metadata.own_required_count("attention.sliding_window")?));
    // A list with an entry per layer is made only of a number that can be one.
    fields.insert("layer_types".into(), json!((0..num_layers.min(10_000)).map(kind).collect::<Vec<_>>()));
    fields.insert("rope_local_base_freq".into(), json!(metadata.own_f64("rope.freq_base_swa")?.unwrap_or(10_000.0)));
    if let Some(cap) = metadata.own_f64("final_logit_softcapping")? {
        fields.insert("final_logit_softcapping".into(), json!(cap));
    }
    if let Some(cap) = metadata.own_f64("attn_logit_softcapping")? {
        fields.insert("attn_logit_softcapping".into(), json!(cap));
    }
    Ok(())
}

fn rope_scaling(metadata: &Metadata<'_>, facts: &TensorFacts) -> Result<Value, WeightsError> {
    if let Some(factors) = &facts.rope_factors {
        return Ok(json!({"rope_type": "factors", "factors": factors}));
    }
    let factor = match metadata.own_f64("rope.scaling.factor")? {
        Some(factor) => Some(factor),
        // What it was called until 2023.
        None => metadata.own_f64("rope.scale_linear")?,
    };
    let kind = metadata.own_str("rope.scaling.type")?.or(factor.map(|_| "linear"));
    match (kind, factor) {
        (None | Some("none"), _) | (_, None | Some(0.0)) => Ok(Value::Null),
        (Some(kind @ ("linear" | "yarn")), Some(factor)) => Ok(json!({
            "rope_type": kind,
            "factor": factor,
            "original_max_position_embeddings": metadata.own_count("rope.scaling.original_context_length")?,
        })),
        (Some(other), _) => {
            let reason = format!("is \"{other}\"; known are none, linear and yarn");
            Err(metadata.error(&metadata.own_key("rope.scaling.type"), reason))
        }
    }
}

/// What a model says at the end of a turn, where a file does not name it: its text decides, as in llama.cpp.
const END_OF_TURN: [&str; 6] = ["<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>"];
/// The type of tokens that belong to the protocol.
const CONTROL: i64 = 3;

/// Of the text and of a turn.
fn end_tokens(metadata: &Metadata<'_>) -> Result<Vec<u32>, WeightsError> {
    let mut ids = Vec::new();
    for key in ["eos_token_id", "eot_token_id", "eom_token_id"] {
        ids.extend(metadata.u32(&format!("tokenizer.ggml.{key}"))?);
    }
    if let (Some(tokens), Some(kinds)) = (metadata.array("tokenizer.ggml.tokens")?, metadata.array("tokenizer.ggml.token_type")?) {
        let tokens = (0u32..).zip(tokens.values()).zip(kinds.values());
        let ends = tokens.filter(|((_, token), kind)| {
            kind.as_i64() == Some(CONTROL) && token.as_str().is_some_and(|token| END_OF_TURN.contains(&token))
        });
        ids.extend(ends.map(|((id, _), _)| id));
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}
