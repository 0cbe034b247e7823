//! Runs a model by hand-built plans and holds what it says against the reference.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokenflow_engine::{
    backend::{
        Backend, RaggedBatch,
        cpu::{ComputeType, CpuBackend, CpuConfig, Isa, KvType},
    },
    executor::{CacheSize, Executor, LocalExecutor},
    kv::BlockId,
    model::{self, Hidden, ModelConfig},
    sampling::{SampledToken, SamplingParams},
    scheduler::{SampleRequest, ScheduledSequence, SequenceId, StepPlan},
    weights::{Checkpoint, Loader},
};

pub const DEMO: &str = "demo-model";
pub const ISAS: [Isa; 5] = [Isa::Avx512Bf16, Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Portable];
/// Of a log-probability in f32: another epsilon in the norms (1e-5 for 1e-6) is four times as far off.
pub const TOLERANCE: f32 = 1e-4;
pub const EXACT: CpuConfig =
    CpuConfig { threads: 2, compute: ComputeType::F32, kv_dtype: KvType::F32, weights: None, isa: None, populated_kv_bytes: 0 };

#[derive(Deserialize)]
pub struct Reference {
    #[serde(default)]
    pub bf16: Deviation,
    pub cases: Vec<Case>,
}

/// How far transformers' own bf16 arithmetic is from its f32.
#[derive(Default, Deserialize)]
pub struct Deviation {
    pub worst: f32,
    pub agree: usize,
}

#[derive(Deserialize)]
pub struct Case {
    pub prompt_ids: Vec<u32>,
    pub output_ids: Vec<u32>,
    /// Per output position: the log-probability of the chosen id.
    #[serde(default)]
    pub logprobs: Vec<f32>,
    /// Per output position: the likeliest ids with their log-probabilities.
    #[serde(default)]
    pub top: Vec<Vec<(u32, f32)>>,
}

pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(if name == DEMO { "" } else { "fixtures" }).join(name)
}

pub fn reference(folder: &Path) -> Reference {
    let reference: Reference = serde_json::from_slice(&std::fs::read(folder.join("reference.json")).unwrap()).unwrap();
    assert!(reference.cases.iter().all(|c| c.top.len() + c.logprobs.len() == c.output_ids.len() && !c.output_ids.is_empty()));
    reference
}

/// How the driver cuts the work.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    pub block_size: usize,
    /// Most tokens of one sequence in a step.
    pub chunk: usize,
    /// All sequences in every step, rather than one after the other.
    pub together: bool,
}

/// `None` where this machine lacks the instruction set.
pub fn executor(folder: &Path, config: CpuConfig, block_size: usize) -> Option<LocalExecutor<CpuBackend>> {
    let backend = CpuBackend::new(config).ok()?;
    let model_config = ModelConfig::open(folder).unwrap();
    let checkpoint = Checkpoint::open(folder).unwrap();
    let model = model::load(&model_config, Loader::new(&checkpoint), &backend, 0..model_config.num_layers).unwrap();
    Some(LocalExecutor::new(backend, model, CacheSize { num_blocks: 1024 / block_size, num_host_blocks: 0, block_size }, 1024).unwrap())
}

struct Sequence {
    tokens: Vec<u32>,
    num_computed_tokens: usize,
    block_table: Vec<BlockId>,
    sampled: Vec<SampledToken>,
}

/// Runs the cases by hand-built plans. With `teacher`, each sequence goes on with the reference's token, whatever was sampled.
pub fn drive(executor: &mut dyn Executor, cases: &[Case], cut: Cut, teacher: bool) -> Vec<Vec<SampledToken>> {
    let mut next_block = 0;
    let mut sequences: Vec<Sequence> = cases
        .iter()
        .map(|case| {
            let blocks = (case.prompt_ids.len() + case.output_ids.len()).div_ceil(cut.block_size) as u32;
            next_block += blocks;
            // In falling order: a kernel that ignores the table must not get away with it.
            let block_table = (next_block - blocks..next_block).rev().map(BlockId).collect();
            Sequence { tokens: case.prompt_ids.clone(), num_computed_tokens: 0, block_table, sampled: Vec::new() }
        })
        .collect();
    let params = SamplingParams { logprobs: Some(20), ..SamplingParams::greedy() };
    let mut step = 0;
    loop {
        let unfinished = (0..cases.len()).filter(|&i| sequences[i].sampled.len() < cases[i].output_ids.len());
        let scheduled: Vec<usize> = unfinished.take(if cut.together { usize::MAX } else { 1 }).collect();
        if scheduled.is_empty() {
            return sequences.into_iter().map(|s| s.sampled).collect();
        }
        let share = |&i: &usize| {
            let s = &sequences[i];
            let end = s.tokens.len().min(s.num_computed_tokens + cut.chunk);
            ScheduledSequence {
                id: SequenceId(i as u64),
                tokens: s.tokens[s.num_computed_tokens..end].to_vec(),
                start: s.num_computed_tokens,
                block_table: s.block_table.clone(),
                sample: (end == s.tokens.len()).then(|| SampleRequest::after(&params, &s.tokens, s.sampled.len())),
                num_draft_tokens: 0,
                pending: None,
            }
        };
        let plan = StepPlan { step, sequences: scheduled.iter().map(share).collect(), ..StepPlan::default() };
        let output = executor.execute(&plan).unwrap();
        step += 1;
        for s in &plan.sequences {
            sequences[s.id.0 as usize].num_computed_tokens += s.tokens.len();
        }
        for (id, token) in output.sampled {
            let s = &mut sequences[id.0 as usize];
            s.tokens.push(if teacher { cases[id.0 as usize].output_ids[s.sampled.len()] } else { token.token });
            s.sampled.push(token);
        }
    }
}

/// Largest difference between our log-probabilities and the reference's, over its likeliest ids; and how often ours is the likeliest.
pub fn compare(case: &Case, sampled: &[SampledToken]) -> (f32, usize) {
    let (mut worst, mut agree) = (0f32, 0);
    for (i, ours) in sampled.iter().enumerate() {
        agree += usize::from(ours.token == case.output_ids[i]);
        let chosen = case.logprobs.get(i).map(|logprob| (case.output_ids[i], *logprob));
        for (id, logprob) in case.top.get(i).into_iter().flatten().copied().chain(chosen) {
            let found = ours.top.iter().find(|(ours, _)| *ours == id);
            worst = worst.max(found.map_or(f32::INFINITY, |(_, found)| (found - logprob).abs()));
        }
    }
    (worst, agree)
}

pub fn assert_exact(folder: &Path, cases: &[Case], config: CpuConfig, cut: Cut) -> bool {
    let Some(mut executor) = executor(folder, config, cut.block_size) else { return false };
    for (number, (case, sampled)) in cases.iter().zip(drive(&mut executor, cases, cut, false)).enumerate() {
        let what = format!("{}, {:?}, {cut:?}, case {number}", folder.display(), config.isa);
        assert_eq!(sampled.iter().map(|t| t.token).collect::<Vec<_>>(), case.output_ids, "{what}");
        let (worst, _) = compare(case, &sampled);
        assert!(worst < TOLERANCE, "{what}: a log-probability differs by {worst}");
    }
    true
}

/// Whether the model in two parts says what it says whole.
pub fn assert_stages_compose(folder: &Path) {
    let (config, checkpoint) = (ModelConfig::open(folder).unwrap(), Checkpoint::open(folder).unwrap());
    let case = &reference(folder).cases[1];
    let backend = CpuBackend::new(EXACT).unwrap();
    let request = SampleRequest::after(&SamplingParams { logprobs: Some(20), ..SamplingParams::greedy() }, &[], 0);
    let sequence = ScheduledSequence {
        id: SequenceId(0),
        tokens: case.prompt_ids.clone(),
        start: 0,
        block_table: (0..3).map(BlockId).collect(),
        sample: Some(request.clone()),
        num_draft_tokens: 0,
        pending: None,
    };
    let batch = backend.batch(RaggedBatch::new(&StepPlan { sequences: vec![sequence], ..StepPlan::default() }, 16));
    let (mut hidden, mut logits) = (Hidden::new(&backend), backend.buffer());
    for layers in [0..1, 1..config.num_layers] {
        let mut stage = model::load(&config, Loader::new(&checkpoint), &backend, layers).unwrap();
        let mut kv = backend.kv_cache(stage.kv_layout(3, 16)).unwrap();
        stage.forward(&backend, &batch, &mut kv, &mut hidden, Some(&mut logits));
    }
    let sampled = backend.sample(&logits, &[&request]).unwrap();
    assert_eq!(sampled[0].token, case.output_ids[0]);
    assert!(compare(case, &sampled).0 < TOLERANCE);
}

/// Whether bf16 arithmetic of ours is as near to the reference's f32 as the reference's own bf16.
pub fn assert_bf16(folder: &Path, isa: Option<Isa>) {
    let Reference { bf16, cases } = reference(folder);
    let cut = Cut { block_size: 16, chunk: 64, together: true };
    let config = CpuConfig { compute: ComputeType::BF16, kv_dtype: KvType::BF16, isa, ..EXACT };
    let mut executor = executor(folder, config, cut.block_size).unwrap();
    let sampled = drive(&mut executor, &cases, cut, true);
    let compared: Vec<_> = cases.iter().zip(&sampled).map(|(case, sampled)| compare(case, sampled)).collect();
    let worst = compared.iter().map(|c| c.0).fold(0.0, f32::max);
    let agree = compared.iter().map(|c| c.1).sum::<usize>();
    let name = folder.display();
    println!("{name}, {isa:?}: log-probabilities within {worst:.3} ({:.3}), top-1 agrees at {agree} ({})", bf16.worst, bf16.agree);
    assert!(worst < 1.25 * bf16.worst, "{name}, {isa:?}: {worst} where transformers has {}", bf16.worst);
    assert!(agree + 2 >= bf16.agree, "{name}, {isa:?}: top-1 agrees at {agree} where transformers has {}", bf16.agree);
}
