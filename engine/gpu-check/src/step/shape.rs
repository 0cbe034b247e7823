//! Shapes of models, and of the steps that they are measured with.

use serde_json::{Value, json};

/// A decoder of Llama's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub name: &'static str,
    pub layers: usize,
    pub hidden: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub intermediate: usize,
    pub vocabulary: usize,
    pub max_positions: usize,
}

impl Shape {
    pub const LLAMA_8B: Self = Self {
        name: "Llama-3.1-8B",
        layers: 32,
        hidden: 4096,
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
        intermediate: 14336,
        vocabulary: 128_256,
        max_positions: 8192,
    };

    /// For devices on which the other would take hours.
    pub const TINY: Self = Self {
        name: "tiny Llama",
        layers: 2,
        hidden: 64,
        heads: 4,
        kv_heads: 2,
        head_dim: 32,
        intermediate: 96,
        vocabulary: 256,
        max_positions: 256,
    };

    pub fn qkv_features(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    pub fn attention_features(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Tensors as a checkpoint has them, by name; the output table is not the input's.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (hidden, inner, q, kv) = (self.hidden, self.intermediate, self.attention_features(), self.kv_heads * self.head_dim);
        let layer = |i: usize| {
            let tensor = move |name: &str, shape: Vec<usize>| (format!("model.layers.{i}.{name}.weight"), shape);
            [
                tensor("input_layernorm", vec![hidden]),
                tensor("self_attn.q_proj", vec![q, hidden]),
                tensor("self_attn.k_proj", vec![kv, hidden]),
                tensor("self_attn.v_proj", vec![kv, hidden]),
                tensor("self_attn.o_proj", vec![hidden, q]),
                tensor("post_attention_layernorm", vec![hidden]),
                tensor("mlp.gate_proj", vec![inner, hidden]),
                tensor("mlp.up_proj", vec![inner, hidden]),
                tensor("mlp.down_proj", vec![hidden, inner]),
            ]
        };
        let ends = [("model.embed_tokens", vec![self.vocabulary, hidden]), ("lm_head", vec![self.vocabulary, hidden])];
        let ends = ends.into_iter().map(|(name, shape)| (format!("{name}.weight"), shape));
        ends.chain([("model.norm.weight".to_owned(), vec![hidden])]).chain((0..self.layers).flat_map(layer)).collect()
    }

    /// Bytes that one token of a lone sequence reads of the weights: all but the table of which it takes one row.
    pub fn weight_bytes_per_token(&self) -> u64 {
        let elements =
            |(name, shape): &(String, Vec<usize>)| if name.contains("embed_tokens") { 0 } else { shape.iter().product::<usize>() };
        2 * self.tensors().iter().map(elements).sum::<usize>() as u64
    }

    /// As `config.json` says it.
    pub fn config(&self) -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16", "hidden_act": "silu",
            "hidden_size": self.hidden, "intermediate_size": self.intermediate, "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads, "head_dim": self.head_dim,
            "vocab_size": self.vocabulary, "max_position_embeddings": self.max_positions, "rms_norm_eps": 1e-5,
            "rope_theta": 500_000.0, "tie_word_embeddings": false, "attention_bias": false, "mlp_bias": false,
            "bos_token_id": 0, "eos_token_id": 1,
        })
    }
}

/// What a step computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    pub sequences: usize,
    /// Tokens of each sequence in this step.
    pub tokens: usize,
    /// Positions in the cache that its last token sees, itself included.
    pub context: usize,
}

impl Load {
    pub fn decode(sequences: usize, context: usize) -> Self {
        Self { sequences, tokens: 1, context }
    }

    pub fn prefill(tokens: usize) -> Self {
        Self { sequences: 1, tokens, context: tokens }
    }

    pub fn rows(&self) -> usize {
        self.sequences * self.tokens
    }

    /// Pairs of a token and a position that it sees.
    pub fn visits(&self) -> usize {
        let before = self.context - self.tokens;
        self.sequences * (self.tokens * before + self.tokens * (self.tokens + 1) / 2)
    }

    pub fn name(&self) -> String {
        match (self.tokens, self.sequences) {
            (1, 1) => format!("decode, one sequence of {} positions", self.context),
            (1, n) => format!("decode, {n} sequences of {} positions each", self.context),
            (tokens, _) => format!("prefill of {tokens} tokens"),
        }
    }
}
