//! Parity with the reference implementation: transformers' greedy ids and log-probabilities (engine/fixtures/make.py), however the
//! work is cut into batches, chunks and blocks, on every instruction set that this machine has.

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

const FIXTURES: [&str; 3] = ["qwen3", "llama", "llama-linear"];
const DEMO: &str = "demo-model";
const ISAS: [Isa; 5] = [Isa::Avx512Bf16, Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Portable];
/// Of a log-probability in f32: another epsilon in the norms (1e-5 for 1e-6) is four times as far off.
const TOLERANCE: f32 = 1e-4;
const EXACT: CpuConfig =
    CpuConfig { threads: 2, compute: ComputeType::F32, kv_dtype: KvType::F32, weights: None, isa: None, populated_kv_bytes: 0 };

#[derive(Deserialize)]
struct Reference {
    #[serde(default)]
    bf16: Deviation,
    cases: Vec<Case>,
}

/// How far transformers' own bf16 arithmetic is from its f32.
#[derive(Default, Deserialize)]
struct Deviation {
    worst: f32,
    agree: usize,
}

#[derive(Deserialize)]
struct Case {
    prompt_ids: Vec<u32>,
    output_ids: Vec<u32>,
    /// Per output position: the log-probability of the chosen id.
    #[serde(default)]
    logprobs: Vec<f32>,
    /// Per output position: the likeliest ids with their log-probabilities.
    #[serde(default)]
    top: Vec<Vec<(u32, f32)>>,
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(if name == DEMO { "" } else { "fixtures" }).join(name)
}

fn reference(folder: &Path) -> Reference {
    let reference: Reference = serde_json::from_slice(&std::fs::read(folder.join("reference.json")).unwrap()).unwrap();
    assert!(reference.cases.iter().all(|c| c.top.len() + c.logprobs.len() == c.output_ids.len() && !c.output_ids.is_empty()));
    reference
}

/// How the driver cuts the work.
#[derive(Clone, Copy, Debug)]
struct Cut {
    block_size: usize,
    /// Most tokens of one sequence in a step.
    chunk: usize,
    /// All sequences in every step, rather than one after the other.
    together: bool,
}

/// `None` where this machine lacks the instruction set.
fn executor(folder: &Path, config: CpuConfig, block_size: usize) -> Option<LocalExecutor<CpuBackend>> {
    let backend = CpuBackend::new(config).ok()?;
    let model_config = ModelConfig::open(folder).unwrap();
    let checkpoint = Checkpoint::open(folder).unwrap();
    let model = model::load(&model_config, Loader::new(&checkpoint), &backend, 0..model_config.num_layers).unwrap();
    Some(LocalExecutor::new(backend, model, CacheSize { num_blocks: 1024 / block_size, block_size }, 1024).unwrap())
}

struct Sequence {
    tokens: Vec<u32>,
    num_computed_tokens: usize,
    block_table: Vec<BlockId>,
    sampled: Vec<SampledToken>,
}

/// Runs the cases by hand-built plans. With `teacher`, each sequence goes on with the reference's token, whatever was sampled.
fn drive(executor: &mut dyn Executor, cases: &[Case], cut: Cut, teacher: bool) -> Vec<Vec<SampledToken>> {
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
fn compare(case: &Case, sampled: &[SampledToken]) -> (f32, usize) {
    let (mut worst, mut agree) = (0f32, 0);
    for (i, ours) in sampled.iter().enumerate() {
        agree += usize::from(ours.token == case.output_ids[i]);
        let chosen = case.logprobs.get(i).map(|logprob| (case.output_ids[i], *logprob));
        for (id, logprob) in case.top.get(i).into_iter().flatten().copied().chain(chosen) {
            let (_, found) = ours.top.iter().find(|(ours, _)| *ours == id).expect("the reference's likeliest are among our twenty");
            worst = worst.max((found - logprob).abs());
        }
    }
    (worst, agree)
}

fn assert_exact(name: &str, cases: &[Case], config: CpuConfig, cut: Cut) -> bool {
    let Some(mut executor) = executor(&folder(name), config, cut.block_size) else { return false };
    for (number, (case, sampled)) in cases.iter().zip(drive(&mut executor, cases, cut, false)).enumerate() {
        let what = format!("{name}, {:?}, {cut:?}, case {number}", config.isa);
        assert_eq!(sampled.iter().map(|t| t.token).collect::<Vec<_>>(), case.output_ids, "{what}");
        let (worst, _) = compare(case, &sampled);
        assert!(worst < TOLERANCE, "{what}: a log-probability differs by {worst}");
    }
    true
}

#[test]
fn greedy_ids_and_logprobs_are_the_references() {
    for name in FIXTURES {
        let cases = reference(&folder(name)).cases;
        assert!(cases.iter().any(|c| c.prompt_ids.len() > 100));
        for block_size in [4, 16] {
            for (chunk, together) in [(1024, false), (1024, true), (16, false), (7, true)] {
                assert!(assert_exact(name, &cases, EXACT, Cut { block_size, chunk, together }));
            }
        }
    }
}

#[test]
fn every_instruction_set_agrees() {
    let mut run = Vec::new();
    for isa in ISAS {
        for name in FIXTURES {
            let config = CpuConfig { isa: Some(isa), ..EXACT };
            if assert_exact(name, &reference(&folder(name)).cases, config, Cut { block_size: 16, chunk: 33, together: true }) {
                run.push((isa, name));
            }
        }
    }
    assert!(FIXTURES.iter().all(|name| run.contains(&(Isa::Portable, name))), "{run:?}");
    println!("instruction sets: {run:?}");
}

#[test]
fn the_demo_model_says_what_the_reference_says() {
    let cases = reference(&folder(DEMO)).cases;
    assert!(cases.len() >= 2);
    assert!(assert_exact(DEMO, &cases, EXACT, Cut { block_size: 16, chunk: 1024, together: false }));
    assert!(assert_exact(DEMO, &cases, EXACT, Cut { block_size: 4, chunk: 9, together: true }));
}

#[test]
fn pipeline_stages_compose() {
    for name in FIXTURES {
        let (config, checkpoint) = (ModelConfig::open(&folder(name)).unwrap(), Checkpoint::open(&folder(name)).unwrap());
        let case = &reference(&folder(name)).cases[1];
        let backend = CpuBackend::new(EXACT).unwrap();
        let request = SampleRequest::after(&SamplingParams { logprobs: Some(20), ..SamplingParams::greedy() }, &[], 0);
        let sequence = ScheduledSequence {
            id: SequenceId(0),
            tokens: case.prompt_ids.clone(),
            start: 0,
            block_table: (0..3).map(BlockId).collect(),
            sample: Some(request.clone()),
            num_draft_tokens: 0,
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
}

/// Not only the ids: every log-probability is the same to the last bit, in either arithmetic.
#[test]
fn how_the_work_is_cut_changes_nothing() {
    for (compute, kv_dtype) in [(ComputeType::F32, KvType::F32), (ComputeType::BF16, KvType::BF16)] {
        for name in FIXTURES {
            let cases = reference(&folder(name)).cases;
            let run = |block_size, chunk, together| {
                let mut executor = executor(&folder(name), CpuConfig { compute, kv_dtype, ..EXACT }, block_size).unwrap();
                drive(&mut executor, &cases, Cut { block_size, chunk, together }, false)
            };
            let whole = run(16, 1024, false);
            for (block_size, chunk, together) in
                [(16, 1024, true), (16, 16, true), (16, 7, false), (4, 1024, false), (4, 7, true), (32, 50, true)]
            {
                assert_eq!(
                    run(block_size, chunk, together),
                    whole,
                    "{name}, {compute:?}, blocks of {block_size}, chunks of {chunk}, {together}"
                );
            }
        }
    }
}

/// bf16 has 8 bits of mantissa, and wide random models are the hard case: the measure is what transformers loses by it.
#[test]
fn bf16_is_no_further_off_than_the_references_own() {
    for isa in [None, Some(Isa::Portable)] {
        for name in FIXTURES {
            let Reference { bf16, cases } = reference(&folder(name));
            let cut = Cut { block_size: 16, chunk: 64, together: true };
            let config = CpuConfig { threads: 2, compute: ComputeType::BF16, kv_dtype: KvType::BF16, isa, ..CpuConfig::default() };
            let mut executor = executor(&folder(name), config, cut.block_size).unwrap();
            let sampled = drive(&mut executor, &cases, cut, true);
            let compared: Vec<_> = cases.iter().zip(&sampled).map(|(case, sampled)| compare(case, sampled)).collect();
            let worst = compared.iter().map(|c| c.0).fold(0.0, f32::max);
            let agree = compared.iter().map(|c| c.1).sum::<usize>();
            println!("{name}, {isa:?}: log-probabilities within {worst:.3} ({:.3}), top-1 agrees at {agree} ({})", bf16.worst, bf16.agree);
            assert!(worst < 1.25 * bf16.worst, "{name}, {isa:?}: {worst} where transformers has {}", bf16.worst);
            assert!(agree + 2 >= bf16.agree, "{name}, {isa:?}: top-1 agrees at {agree} where transformers has {}", bf16.agree);
        }
    }
}
