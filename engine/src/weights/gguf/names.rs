//! GGUF's names of tensors, and Hugging Face's.

use crate::weights::checkpoint::Arrangement;

/// Which names a file uses for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// Llama and Mistral: queries and keys have their rows in rotated pairs.
    Llama,
    /// The same with experts, named as Mixtral's.
    Mixtral,
    Qwen,
    QwenMoe,
    /// Four norms in a layer, to each of whose weights 1 was added.
    Gemma3,
}

/// What one tensor of a file is to a model.
#[derive(Debug, PartialEq)]
pub(super) enum Meaning {
    Whole {
        name: String,
        arrangement: Arrangement,
    },
    /// One matrix for each expert, one after the other: the name begins and ends so, with the expert's number between.
    Experts {
        before: String,
        after: String,
    },
}

/// `None` for what a model has no use for.
pub(super) fn meaning(naming: Naming, head_dim: usize, name: &str) -> Option<Meaning> {
    let arrangement = if naming == Naming::Gemma3 && name.ends_with("norm.weight") { Arrangement::PlusOne } else { Arrangement::AsIs };
    let whole = |name: String| Some(Meaning::Whole { name, arrangement });
    match name {
        "token_embd.weight" => return whole("model.embed_tokens.weight".into()),
        "output_norm.weight" => return whole("model.norm.weight".into()),
        "output.weight" => return whole("lm_head.weight".into()),
        _ => {}
    }
    let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
    let layer: u32 = layer.parse().ok()?;
    let (module, kind) = part.rsplit_once('.')?;
    let place = |inner: &str| format!("model.layers.{layer}.{inner}.{kind}");
    let arrangement = match (naming, module) {
        (Naming::Llama | Naming::Mixtral, "attn_q" | "attn_k") => Arrangement::RotaryPairs { head_dim },
        _ => arrangement,
    };
    if let Some(expert) = module.strip_suffix("_exps") {
        let (block, inner) = match (naming, expert) {
            (Naming::Mixtral, "ffn_gate") => ("block_sparse_moe", "w1"),
            (Naming::Mixtral, "ffn_down") => ("block_sparse_moe", "w2"),
            (Naming::Mixtral, "ffn_up") => ("block_sparse_moe", "w3"),
            (Naming::QwenMoe, "ffn_gate") => ("mlp", "gate_proj"),
            (Naming::QwenMoe, "ffn_down") => ("mlp", "down_proj"),
            (Naming::QwenMoe, "ffn_up") => ("mlp", "up_proj"),
            _ => return None,
        };
        return Some(Meaning::Experts { before: format!("model.layers.{layer}.{block}.experts."), after: format!(".{inner}.{kind}") });
    }
    let inner = match (naming, module) {
        (_, "attn_norm") => "input_layernorm",
        (_, "attn_q") => "self_attn.q_proj",
        (_, "attn_k") => "self_attn.k_proj",
        (_, "attn_v") => "self_attn.v_proj",
        (_, "attn_output") => "self_attn.o_proj",
        (_, "attn_q_norm") => "self_attn.q_norm",
        (_, "attn_k_norm") => "self_attn.k_norm",
        (Naming::Gemma3, "post_attention_norm") => "post_attention_layernorm",
        (Naming::Gemma3, "ffn_norm") => "pre_feedforward_layernorm",
        (Naming::Gemma3, "post_ffw_norm") => "post_feedforward_layernorm",
        (_, "ffn_norm") => "post_attention_layernorm",
        (_, "ffn_gate") => "mlp.gate_proj",
        (_, "ffn_up") => "mlp.up_proj",
        (_, "ffn_down") => "mlp.down_proj",
        (Naming::Mixtral, "ffn_gate_inp") => "block_sparse_moe.gate",
        (Naming::QwenMoe, "ffn_gate_inp") => "mlp.gate",
        _ => return None,
    };
    Some(Meaning::Whole { name: place(inner), arrangement })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(naming: Naming, name: &str) -> Option<(String, Arrangement)> {
        match meaning(naming, 64, name)? {
            Meaning::Whole { name, arrangement } => Some((name, arrangement)),
            Meaning::Experts { before, after } => Some((format!("{before}7{after}"), Arrangement::AsIs)),
        }
    }

    #[test]
    fn names_are_the_models() {
        let as_is = |name: &str| Some((name.to_owned(), Arrangement::AsIs));
        assert_eq!(whole(Naming::Qwen, "blk.3.attn_q.bias"), as_is("model.layers.3.self_attn.q_proj.bias"));
        let paired = Some(("model.layers.3.self_attn.k_proj.weight".to_owned(), Arrangement::RotaryPairs { head_dim: 64 }));
        assert_eq!(whole(Naming::Llama, "blk.3.attn_k.weight"), paired);
        assert_eq!(whole(Naming::Llama, "blk.3.ffn_norm.weight"), as_is("model.layers.3.post_attention_layernorm.weight"));
        let plus_one = |name: &str| Some((name.to_owned(), Arrangement::PlusOne));
        assert_eq!(whole(Naming::Gemma3, "blk.0.ffn_norm.weight"), plus_one("model.layers.0.pre_feedforward_layernorm.weight"));
        assert_eq!(whole(Naming::Gemma3, "blk.0.attn_q_norm.weight"), plus_one("model.layers.0.self_attn.q_norm.weight"));
        assert_eq!(whole(Naming::Gemma3, "output_norm.weight"), plus_one("model.norm.weight"));
        assert_eq!(whole(Naming::Mixtral, "blk.1.ffn_up_exps.weight"), as_is("model.layers.1.block_sparse_moe.experts.7.w3.weight"));
        assert_eq!(whole(Naming::QwenMoe, "blk.1.ffn_down_exps.weight"), as_is("model.layers.1.mlp.experts.7.down_proj.weight"));
        assert_eq!(whole(Naming::QwenMoe, "blk.1.ffn_gate_inp.weight"), as_is("model.layers.1.mlp.gate.weight"));
        for unused in ["rope_freqs.weight", "blk.x.attn_q.weight", "blk.0", "blk.0.attn_q", "blk.0.other.weight", ""] {
            assert_eq!(whole(Naming::Llama, unused), None, "{unused}");
        }
    }
}
