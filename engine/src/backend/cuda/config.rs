//! What an operator, or the size of the model and its steps, decides about a GPU backend. Sizes are upper bounds that memory is set aside for.

use tokenflow_gpu::Element;

pub use crate::backend::cpu::KvType;

/// Splits of attention, of which each leaves `num_heads * head_dim` floats. A step with more goes one group of rows after the other.
const MOST_ITEMS: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CudaConfig {
    /// The type of activations and of plain weights.
    pub compute: Element,
    pub kv: KvType,
    /// Most tokens of a step.
    pub max_tokens: usize,
    /// Most sequences of a step.
    pub max_seqs: usize,
    /// Most rows of logits of a step: sequences, times one more than the tokens that are guessed at.
    pub max_logits_rows: usize,
    /// Longest context, in tokens.
    pub max_model_len: usize,
    /// Tokens of a block of the KV cache.
    pub block_size: usize,
    /// No graphs: every step issues every launch.
    pub enforce_eager: bool,
    /// The same kernels for any number of rows, so that what else is in a batch changes no bit; slower. In f32 kernels are so anyway, except for
    /// products by the vendor's library.
    pub batch_invariant: bool,
    /// Positions of the context that one block of decode attention takes; a multiple of 64.
    pub split_positions: usize,
    /// Whether kernels for NVIDIA's tensor cores may run; other cards attend and multiply without, in f32.
    pub tensor_cores: bool,
    /// What kernels are compiled for; `None` compiles every variant, as prebuilt binaries have them.
    pub needs: Option<Needs>,
}

/// What a model needs of the kernels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    pub head_dim: usize,
    /// Encodings of weights beside plain ones, as kernels call them ("q4_k"), and "odd" where rows of weights are no multiple of 8 long.
    pub formats: Vec<&'static str>,
    /// Whether there are layers with experts.
    pub experts: bool,
}

impl Default for CudaConfig {
    fn default() -> Self {
        Self {
            compute: Element::BF16,
            kv: KvType::BF16,
            max_tokens: 8192,
            max_seqs: 256,
            max_logits_rows: 256,
            max_model_len: 32768,
            block_size: 16,
            enforce_eager: false,
            batch_invariant: false,
            split_positions: 256,
            tensor_cores: true,
            needs: None,
        }
    }
}

impl CudaConfig {
    /// Whether kernels for it exist.
    pub(super) fn check(&self) -> Result<(), String> {
        let compute = name_of(self.compute);
        let fits = match self.kv {
            KvType::F32 | KvType::Fp8 => true,
            KvType::BF16 => self.compute != Element::F16,
            KvType::F16 => self.compute != Element::BF16,
        };
        if !fits {
            return Err(format!("keys and values in {} do not go with activations in {compute} on a GPU", self.kv.name()));
        }
        if self.block_size == 0 || self.max_tokens == 0 || self.max_seqs == 0 || self.max_model_len == 0 {
            return Err("a step has no tokens, sequences or blocks".into());
        }
        if self.split_positions == 0 || !self.split_positions.is_multiple_of(64) {
            return Err(format!("splits of {} positions are no multiple of 64", self.split_positions));
        }
        Ok(())
    }

    pub(super) fn logits_rows(&self) -> usize {
        self.max_logits_rows.max(self.max_seqs)
    }

    /// Most splits that attention has room for at a time, of all rows together.
    pub(super) fn most_items(&self) -> usize {
        let of_one = self.max_model_len.div_ceil(self.split_positions);
        (of_one * self.max_seqs).min(MOST_ITEMS).max(of_one)
    }

    /// What the type of keys and values is called in kernels.
    pub(super) fn kv_tag(&self) -> &'static str {
        match self.kv {
            KvType::F32 => "f32",
            KvType::BF16 => "bf16",
            KvType::F16 => "f16",
            KvType::Fp8 => "e4m3",
        }
    }

    pub(super) fn kv_bytes(&self) -> usize {
        match self.kv {
            KvType::F32 => 4,
            KvType::BF16 | KvType::F16 => 2,
            KvType::Fp8 => 1,
        }
    }

    /// Whether products of many rows have tensor cores.
    pub(super) fn has_tiles(&self) -> bool {
        self.tensor_cores && self.compute != Element::F32
    }

    /// Whether attention is in f32 throughout, by a kernel of its own for all rows.
    pub(super) fn is_exact(&self) -> bool {
        !self.tensor_cores || self.compute == Element::F32 || self.kv == KvType::F32
    }
}

/// What a type is called in messages.
fn name_of(element: Element) -> &'static str {
    match element {
        Element::F32 => "float32",
        Element::F16 => "float16",
        Element::BF16 => "bfloat16",
    }
}

/// What a type is called in kernels.
pub(super) fn tag(element: Element) -> &'static str {
    match element {
        Element::F32 => "f32",
        Element::F16 => "f16",
        Element::BF16 => "bf16",
    }
}

pub(super) fn size_of_element(element: Element) -> usize {
    match element {
        Element::F32 => 4,
        Element::F16 | Element::BF16 => 2,
    }
}
