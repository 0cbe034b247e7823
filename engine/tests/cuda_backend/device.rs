//! Executors over the emulated card, and their twins on the CPU.

use std::path::Path;

use tokenflow_engine::{
    backend::{
        cpu::{CpuBackend, CpuConfig, KvType},
        cuda::{CudaBackend, CudaConfig},
    },
    executor::{CacheSize, Executor, LocalExecutor},
    kv::BlockId,
    model::{self, ModelConfig},
    sampling::{SampledToken, SamplingParams},
    scheduler::{SampleRequest, ScheduledSequence, SequenceId, StepOutput, StepPlan},
    weights::{Checkpoint, Loader},
};
use tokenflow_gpu::{DeviceChoice, Element, Gpu, kernels::LoadOptions};
use tokenflow_gpu_emulator::{Emulated, Options, install};

use crate::driver::EXACT;

pub const BLOCK_SIZE: usize = 8;
pub const CACHE: CacheSize = CacheSize { num_blocks: 24, num_host_blocks: 4, block_size: BLOCK_SIZE };

/// In f32 throughout.
pub fn exact() -> CudaConfig {
    CudaConfig {
        compute: Element::F32,
        kv: KvType::F32,
        max_tokens: 64,
        max_seqs: 4,
        max_logits_rows: 8,
        max_model_len: 192,
        block_size: BLOCK_SIZE,
        split_positions: 64,
        ..CudaConfig::default()
    }
}

pub fn bf16() -> CudaConfig {
    CudaConfig { compute: Element::BF16, kv: KvType::BF16, ..exact() }
}

/// The driver of this process, of a card with few multiprocessors: grids are as large as a card is.
pub fn emulated() -> &'static Emulated {
    install(&Options { multiprocessors: 2, ..Options::nvidia() })
}

pub fn open() -> Gpu {
    emulated();
    Gpu::open(DeviceChoice::Cuda(None)).unwrap()
}

pub fn backend(config: CudaConfig) -> CudaBackend {
    CudaBackend::open(open(), config, &LoadOptions { cache: None, ..LoadOptions::default() }).unwrap()
}

pub fn on_gpu(folder: &Path, config: CudaConfig) -> LocalExecutor<CudaBackend> {
    let max_tokens = config.max_tokens;
    let backend = backend(config);
    let (config, checkpoint) = (ModelConfig::open(folder).unwrap(), Checkpoint::open(folder).unwrap());
    let model = model::load(&config, Loader::new(&checkpoint), &backend, 0..config.num_layers).unwrap();
    LocalExecutor::new(backend, model, CACHE, max_tokens).unwrap()
}

pub fn on_cpu(folder: &Path, config: CpuConfig) -> LocalExecutor<CpuBackend> {
    let backend = CpuBackend::new(config).unwrap();
    let (config, checkpoint) = (ModelConfig::open(folder).unwrap(), Checkpoint::open(folder).unwrap());
    let model = model::load(&config, Loader::new(&checkpoint), &backend, 0..config.num_layers).unwrap();
    LocalExecutor::new(backend, model, CACHE, 1024).unwrap()
}

pub fn exactly_on_cpu(folder: &Path) -> LocalExecutor<CpuBackend> {
    on_cpu(folder, EXACT)
}

/// Tokens of a prompt, in the vocabulary of any fixture.
pub fn prompt(seed: u32, len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| (seed * 97 + i * 31 + i * i * 7) % 251).collect()
}

pub fn with_logprobs() -> SamplingParams {
    SamplingParams { logprobs: Some(5), ..SamplingParams::greedy() }
}

pub fn table(blocks: &[u32]) -> Vec<BlockId> {
    blocks.iter().copied().map(BlockId).collect()
}

/// A sequence of which `all` is known and all but the tokens from `start` on are computed.
pub fn share(id: u64, all: &[u32], start: usize, blocks: &[u32], sample: Option<(&SamplingParams, usize)>) -> ScheduledSequence {
    ScheduledSequence {
        id: SequenceId(id),
        tokens: all[start..].to_vec(),
        start,
        block_table: table(blocks),
        sample: sample.map(|(params, position)| SampleRequest::after(params, all, position)),
        num_draft_tokens: 0,
        pending: None,
    }
}

pub fn plan(sequences: Vec<ScheduledSequence>) -> StepPlan {
    StepPlan { sequences, ..StepPlan::default() }
}

pub fn tokens(output: &StepOutput) -> Vec<u32> {
    output.sampled.iter().map(|(_, token)| token.token).collect()
}

/// `count` greedy tokens after `all`, of which `computed` are in the cache already; one sequence, its prompt in one step.
pub fn generate(executor: &mut dyn Executor, all: &mut Vec<u32>, mut computed: usize, blocks: &[u32], count: usize) -> Vec<SampledToken> {
    let params = with_logprobs();
    let mut sampled = Vec::new();
    for position in 0..count {
        let output = executor.execute(&plan(vec![share(1, all, computed, blocks, Some((&params, position)))])).unwrap();
        computed = all.len();
        let (_, token) = output.sampled.into_iter().next().unwrap();
        all.push(token.token);
        sampled.push(token);
    }
    sampled
}

/// Largest difference of log-probabilities of tokens that both name; infinite where the chosen ones differ.
pub fn distance(ours: &[SampledToken], theirs: &[SampledToken]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    let of = |(ours, theirs): (&SampledToken, &SampledToken)| {
        if ours.token != theirs.token {
            return f32::INFINITY;
        }
        let top =
            ours.top.iter().filter_map(|(id, one)| theirs.top.iter().find(|(other, _)| other == id).map(|(_, two)| (one - two).abs()));
        top.chain([(ours.logprob.unwrap() - theirs.logprob.unwrap()).abs()]).fold(0.0, f32::max)
    };
    ours.iter().zip(theirs).map(of).fold(0.0, f32::max)
}
