//! A whole model with packed weights against the same model with the values that these stand for.

use super::{
    formats::{Encoded, Format},
    *,
};
use crate::{
    executor::{CacheSize, Executor, LocalExecutor},
    kv::{BlockId, HostBlockId},
    model::{self, ModelConfig},
    sampling::{SampledToken, SamplingParams},
    scheduler::{BlockTransfer, SampleRequest, ScheduledSequence, SequenceId, StepPlan},
    weights::{Checkpoint, Loader},
};

const CONFIG: &str = r#"{"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 256, "intermediate_size": 512,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 160, "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0, "max_position_embeddings": 128, "tie_word_embeddings": true, "hidden_act": "silu", "eos_token_id": 0}"#;
const BLOCK_SIZE: usize = 16;
const STEPS: usize = 24;

/// Matrices of a layer, with the number of their rows and columns.
const MATRICES: [(&str, usize, usize); 7] = [
    ("self_attn.q_proj", 256, 256),
    ("self_attn.k_proj", 128, 256),
    ("self_attn.v_proj", 128, 256),
    ("self_attn.o_proj", 256, 256),
    ("mlp.gate_proj", 512, 256),
    ("mlp.up_proj", 512, 256),
    ("mlp.down_proj", 256, 512),
];

/// A checkpoint under construction: safetensors, whose header may name GGUF's types too.
#[derive(Default)]
struct Builder {
    entries: serde_json::Map<String, serde_json::Value>,
    data: Vec<u8>,
}

impl Builder {
    fn add(&mut self, name: String, dtype: &str, shape: &[usize], bytes: &[u8]) {
        let offsets = [self.data.len(), self.data.len() + bytes.len()];
        self.data.extend(bytes);
        self.entries.insert(name, serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets }));
    }

    fn build(self) -> Checkpoint {
        let header = serde_json::to_vec(&self.entries).expect("a header");
        let file = [&(header.len() as u64).to_le_bytes()[..], &header, &self.data].concat();
        Checkpoint::embedded("the test's model", Vec::leak(file)).expect("valid")
    }
}

/// The model packed, and its values as f32. `more` is the format of v and down, which files of mixed formats give more bits. Without
/// `embedding` that is bf16 in both.
fn checkpoints(format: BlockFormat, more: BlockFormat, embedding: bool) -> [Checkpoint; 2] {
    let mut random = Random(13);
    let (mut packed, mut values) = (Builder::default(), Builder::default());
    let mut matrix = |name: String, format: BlockFormat, shape: [usize; 2]| {
        let encoded = Encoded::random(&mut random, Format::Blocks(format), shape);
        let MatrixView::Blocks { bytes, .. } = encoded.view() else { panic!("not of blocks") };
        let dtype = match format {
            BlockFormat::Q8_0 => "Q8_0",
            BlockFormat::Q4_0 => "Q4_0",
            BlockFormat::Q4K => "Q4_K",
            BlockFormat::Q5K => "Q5_K",
            BlockFormat::Q6K => "Q6_K",
        };
        packed.add(name.clone(), dtype, &shape, bytes);
        let f32s: Vec<u8> = encoded.values().iter().flat_map(|v| (*v as f32).to_le_bytes()).collect();
        values.add(name, "F32", &shape, &f32s);
    };
    if embedding {
        matrix("model.embed_tokens.weight".into(), format, [160, 256]);
    }
    for layer in 0..2 {
        for (name, rows, cols) in MATRICES {
            let format = if name.ends_with("v_proj") || name.ends_with("down_proj") { more } else { format };
            matrix(format!("model.layers.{layer}.{name}.weight"), format, [rows, cols]);
        }
    }
    if !embedding {
        let table = Tensor::random(&mut random, DType::BF16, [160, 256]);
        packed.add("model.embed_tokens.weight".into(), "BF16", &[160, 256], &table.bytes);
        values.add("model.embed_tokens.weight".into(), "BF16", &[160, 256], &table.bytes);
    }
    let mut norm = |name: String, len: usize| {
        let bytes: Vec<u8> = (0..len).flat_map(|i| (1.0 + (i % 7) as f32 * 0.05).to_le_bytes()).collect();
        packed.add(name.clone(), "F32", &[len], &bytes);
        values.add(name, "F32", &[len], &bytes);
    };
    norm("model.norm.weight".into(), 256);
    for layer in 0..2 {
        for (name, len) in [("input_layernorm", 256), ("post_attention_layernorm", 256), ("self_attn.q_norm", 64), ("self_attn.k_norm", 64)]
        {
            norm(format!("model.layers.{layer}.{name}.weight"), len);
        }
    }
    [packed.build(), values.build()]
}

/// Greedy tokens after a prompt, with their log-probabilities.
fn generate(checkpoint: &Checkpoint, config: CpuConfig) -> Vec<SampledToken> {
    generate_while(checkpoint, config, Steps::Plain)
}

/// How steps are planned: none of it may matter.
#[derive(Clone, Copy, PartialEq)]
enum Steps {
    Plain,
    /// All of the cache goes to the host and back to other blocks before each step.
    Moving,
    /// As recorded with two steps in flight: a plan does not know the token of the step before.
    Ahead,
}

/// The same, with steps of that kind.
fn generate_while(checkpoint: &Checkpoint, config: CpuConfig, steps: Steps) -> Vec<SampledToken> {
    let moves = steps == Steps::Moving;
    let backend = CpuBackend::new(config).expect("available");
    let model_config = ModelConfig::parse(CONFIG.as_bytes(), None).expect("valid");
    let model = model::load(&model_config, Loader::new(checkpoint), &backend, 0..2).expect("valid");
    let mut executor =
        LocalExecutor::new(backend, model, CacheSize { num_blocks: 16, num_host_blocks: 8, block_size: BLOCK_SIZE }, 64).expect("small");
    let params = SamplingParams { logprobs: Some(5), ..SamplingParams::greedy() };
    let mut tokens: Vec<u32> = (0..20).map(|i| 3 + i * 7).collect();
    let (mut computed, mut sampled) = (0, Vec::new());
    let blocks = |step: usize| (0..8).map(move |i| BlockId(i + if moves { step as u32 % 2 * 8 } else { 0 }));
    while sampled.len() < STEPS {
        let is_ahead = steps == Steps::Ahead && !sampled.is_empty();
        let sequence = ScheduledSequence {
            id: SequenceId(0),
            tokens: if is_ahead { vec![0] } else { tokens[computed..].to_vec() },
            start: computed,
            block_table: blocks(sampled.len()).collect(),
            sample: Some(SampleRequest::after(&params, &tokens, sampled.len())),
            num_draft_tokens: 0,
            pending: is_ahead.then_some(0),
        };
        computed = tokens.len();
        let mut plan = StepPlan { step: sampled.len() as u64, sequences: vec![sequence], ..StepPlan::default() };
        if moves && !sampled.is_empty() {
            let transfer = |(i, device): (u32, BlockId)| BlockTransfer { device, host: HostBlockId(7 - i) };
            plan.offload = (0..).zip(blocks(sampled.len() - 1)).map(transfer).collect();
            plan.onload = (0..).zip(blocks(sampled.len())).map(transfer).collect();
        }
        let (_, token) = executor.execute(&plan).expect("runs").sampled.swap_remove(0);
        tokens.push(token.token);
        sampled.push(token);
    }
    sampled
}

/// Both multiply the same numbers, so that tokens are the same; log-probabilities may differ by 1e-4.
#[test]
fn a_packed_model_says_what_its_values_say() {
    for (format, more) in [
        (BlockFormat::Q8_0, BlockFormat::Q8_0),
        (BlockFormat::Q4_0, BlockFormat::Q8_0),
        (BlockFormat::Q4K, BlockFormat::Q6K),
        (BlockFormat::Q5K, BlockFormat::Q6K),
    ] {
        let compare = |[packed, values]: &[Checkpoint; 2], config: CpuConfig| {
            for (i, (found, expected)) in generate(packed, config).iter().zip(&generate(values, config)).enumerate() {
                assert_eq!(found.token, expected.token, "{format:?} {config:?} token {i}");
                let (found, expected) = (found.logprob.expect("asked for"), expected.logprob.expect("asked for"));
                assert!((found - expected).abs() <= 1e-4, "{format:?} {config:?} token {i}: {found}, not {expected}");
            }
        };
        let all = checkpoints(format, more, true);
        // Products in bf16 round packed values as a conversion of the weights rounds them, but what is embedded is not rounded.
        let but_embedding = checkpoints(format, more, false);
        for isa in isa::available() {
            let exact = CpuConfig { threads: 2, compute: ComputeType::F32, kv_dtype: KvType::F32, isa: Some(isa), ..CpuConfig::default() };
            compare(&all, exact);
            let bf16 = CpuConfig { compute: ComputeType::BF16, weights: Some(DType::BF16), ..exact };
            if CpuBackend::new(bf16).expect("available").cpu.dot_bf16 {
                compare(&but_embedding, bf16);
            }
        }
    }
}

#[test]
fn a_plan_that_names_a_token_of_the_step_before_is_replayed() {
    let [_, values] = checkpoints(BlockFormat::Q8_0, BlockFormat::Q8_0, true);
    let config = CpuConfig { threads: 2, ..CpuConfig::default() };
    assert_eq!(generate_while(&values, config, Steps::Ahead), generate(&values, config));
}

#[test]
fn what_was_in_host_memory_is_what_it_was_before() {
    let [_, values] = checkpoints(BlockFormat::Q8_0, BlockFormat::Q8_0, true);
    for kv_dtype in [KvType::F32, KvType::BF16, KvType::F16, KvType::Fp8] {
        for threads in [1, 2] {
            let config = CpuConfig { threads, compute: ComputeType::F32, kv_dtype, ..CpuConfig::default() };
            assert_eq!(generate_while(&values, config, Steps::Moving), generate(&values, config), "{kv_dtype:?}");
        }
    }
}
