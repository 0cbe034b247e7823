//! The operations of a step in the order in which they are issued, with what each reads, writes and computes at least: every input and
//! output once, whatever a kernel may read again. Activations, weights and the cache have 16 bits; the residual stream and logits are f32.

use super::{Load, Shape};

/// An operation of the backend trait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Embed,
    Norm,
    Qkv,
    RopeKv,
    Attention,
    Output,
    GateUp,
    Activate,
    Down,
    Gather,
    FinalNorm,
    Logits,
    Sample,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Embed => "embedding",
            Self::Norm => "residual sum and norm",
            Self::Qkv => "queries, keys, values",
            Self::RopeKv => "rotation, cache write",
            Self::Attention => "attention",
            Self::Output => "attention's output",
            Self::GateUp => "gate and up",
            Self::Activate => "activation",
            Self::Down => "down",
            Self::Gather => "rows of logits",
            Self::FinalNorm => "last norm",
            Self::Logits => "logits",
            Self::Sample => "greedy choice",
        }
    }

    /// The file of kernels that does it.
    pub fn kernels(self, load: &Load) -> &'static str {
        let product = |rows| match rows {
            0..=8 => "linear",
            _ => "cublasLt or linear_tile",
        };
        match self {
            Self::Embed => "embed",
            Self::Norm | Self::FinalNorm => "norm",
            Self::Qkv | Self::Output | Self::GateUp | Self::Down => product(load.rows()),
            Self::Logits => product(load.sequences),
            Self::RopeKv => "rope",
            Self::Attention if load.tokens == 1 => "attention_decode",
            Self::Attention => "attention_prefill",
            Self::Activate => "activation",
            Self::Gather => "gather",
            Self::Sample => "sample",
        }
    }
}

/// One operation, and how often a step has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    pub kind: Kind,
    pub times: usize,
    /// Of one.
    pub bytes: u64,
    pub flops: u64,
}

/// All of a step.
pub fn operations(shape: &Shape, load: &Load) -> Vec<Operation> {
    let (rows, sequences, hidden, inner) = (load.rows(), load.sequences, shape.hidden, shape.intermediate);
    let (qkv, q, kv) = (shape.qkv_features(), shape.attention_features(), 2 * shape.kv_heads * shape.head_dim);
    let one = |kind, times, bytes: usize, flops: usize| Operation { kind, times, bytes: bytes as u64, flops: flops as u64 };
    let product = |kind, times, rows: usize, features: usize, columns: usize, out_bytes: usize| {
        let bytes = 2 * features * columns + 2 * rows * columns + out_bytes * rows * features;
        one(kind, times, bytes, 2 * rows * features * columns)
    };
    let layers = shape.layers;
    vec![
        one(Kind::Embed, 1, rows * (4 + 2 * hidden + 4 * hidden), 0),
        // The stream is read and written, what is added to it read, the result written.
        one(Kind::Norm, 2 * layers, rows * hidden * (4 + 4 + 2 + 2) + 4 * hidden, 0),
        product(Kind::Qkv, layers, rows, qkv, hidden, 2),
        // Queries in place, keys and values into the cache; an angle's cosine and sine for each pair.
        one(Kind::RopeKv, layers, rows * (2 * qkv + 2 * qkv + 4 * shape.head_dim), 0),
        one(Kind::Attention, layers, 2 * sequences * load.context * kv + rows * (2 * q + 2 * q), 4 * load.visits() * q),
        product(Kind::Output, layers, rows, hidden, q, 2),
        product(Kind::GateUp, layers, rows, 2 * inner, hidden, 2),
        one(Kind::Activate, layers, rows * inner * 2 * 3, 0),
        product(Kind::Down, layers, rows, hidden, inner, 2),
        one(Kind::Gather, 1, sequences * hidden * (4 + 2 + 4), 0),
        one(Kind::FinalNorm, 1, sequences * hidden * (4 + 2) + 4 * hidden, 0),
        product(Kind::Logits, 1, sequences, shape.vocabulary, hidden, 4),
        one(Kind::Sample, 1, sequences * shape.vocabulary * 4, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_what_a_lone_token_reads() {
        let shape = Shape::LLAMA_8B;
        // 8.03 billion parameters of two bytes, of which the table of embeddings has 0.53.
        assert_eq!(shape.weight_bytes_per_token(), 2 * (8_030_261_248 - 128_256 * 4096));
        let products = |kind| matches!(kind, Kind::Qkv | Kind::Output | Kind::GateUp | Kind::Down | Kind::Logits);
        let read: u64 = operations(&shape, &Load::decode(1, 1)).iter().filter(|o| products(o.kind)).map(|o| o.times as u64 * o.bytes).sum();
        let norms = 2 * (2 * 32 + 1) * 4096;
        let activations = read - (shape.weight_bytes_per_token() - norms);
        assert!(activations < 10_000_000, "{activations} bytes of activations");
    }

    #[test]
    fn a_token_of_a_prompt_sees_itself_and_all_before() {
        assert_eq!(Load::prefill(3).visits(), 1 + 2 + 3);
        assert_eq!(Load::decode(2, 10).visits(), 20);
        assert_eq!(Load { sequences: 1, tokens: 2, context: 5 }.visits(), 4 + 5);
    }
}
