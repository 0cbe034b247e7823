//! Qwen3-Embedding: tensors without a prefix, the last token's state, scaled to length 1.

use std::{fs, path::Path};

use serde::Deserialize;
use tokenflow_engine::{
    backend::cpu::{ComputeType, CpuConfig, Isa, KvType},
    executor::Executor,
    kv::BlockId,
    sampling::SamplingParams,
    scheduler::{SampleRequest, ScheduledSequence, SequenceId, StepPlan},
};

use crate::{
    driver::{Cut, Deviation, EXACT, ISAS, executor},
    weights::Model,
};

/// Of an element of a vector of length 1, in f32.
const TOLERANCE: f32 = 5e-6;

#[derive(Deserialize)]
struct Reference {
    bf16: Deviation,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    prompt_ids: Vec<u32>,
    embedding: Vec<f32>,
}

/// As sentence-transformers leaves it.
fn write_modules(folder: &Path) {
    let modules = r#"[{"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}]"#;
    fs::write(folder.join("modules.json"), modules).unwrap();
    fs::create_dir(folder.join("1_Pooling")).unwrap();
    fs::write(folder.join("1_Pooling/config.json"), r#"{"pooling_mode_lasttoken": true}"#).unwrap();
}

/// One vector per prompt; `None` where this machine lacks the instruction set.
fn embed(folder: &Path, config: CpuConfig, cut: Cut, cases: &[Case]) -> Option<Vec<Vec<f32>>> {
    let mut executor = executor(folder, config, cut.block_size)?;
    let (mut computed, mut vectors) = (vec![0; cases.len()], vec![Vec::new(); cases.len()]);
    for step in 0.. {
        let unfinished = (0..cases.len()).filter(|&i| vectors[i].is_empty()).take(if cut.together { usize::MAX } else { 1 });
        let share = |i: usize| {
            let prompt = &cases[i].prompt_ids;
            let (start, end) = (computed[i], prompt.len().min(computed[i] + cut.chunk));
            let blocks = 128_u32.div_ceil(cut.block_size as u32);
            ScheduledSequence {
                id: SequenceId(i as u64),
                tokens: prompt[start..end].to_vec(),
                start,
                block_table: (0..blocks).map(|block| BlockId(block * cases.len() as u32 + i as u32)).collect(),
                sample: (end == prompt.len()).then(|| SampleRequest::after(&SamplingParams::greedy(), prompt, 0)),
                num_draft_tokens: 0,
                pending: None,
            }
        };
        let plan = StepPlan { step, sequences: unfinished.map(share).collect(), ..StepPlan::default() };
        if plan.sequences.is_empty() {
            break;
        }
        plan.sequences.iter().for_each(|s| computed[s.id.0 as usize] += s.tokens.len());
        let output = executor.execute(&plan).unwrap();
        assert!(output.sampled.iter().map(|s| s.0).eq(output.pooled.iter().map(|p| p.0)));
        output.pooled.into_iter().for_each(|(id, vector)| vectors[id.0 as usize] = vector);
    }
    Some(vectors)
}

fn worst(cases: &[Case], vectors: &[Vec<f32>]) -> f32 {
    let pairs = cases.iter().zip(vectors).flat_map(|(case, vector)| case.embedding.iter().zip(vector));
    pairs.map(|(expected, found)| (expected - found).abs()).fold(0.0, f32::max)
}

#[test]
fn qwen3_embedding() {
    let model = Model::new("qwen3-embedding");
    let folder = &model.folder();
    write_modules(folder);
    let Reference { bf16, cases } = serde_json::from_slice(&fs::read(folder.join("reference.json")).unwrap()).unwrap();
    let whole = Cut { block_size: 16, chunk: 1024, together: true };
    for isa in ISAS {
        if let Some(vectors) = embed(folder, CpuConfig { isa: Some(isa), ..EXACT }, whole, &cases) {
            assert_eq!(vectors.len(), 3);
            assert!(worst(&cases, &vectors) < TOLERANCE, "{isa:?}: {}", worst(&cases, &vectors));
        }
    }
    for (compute, kv_dtype) in [(ComputeType::F32, KvType::F32), (ComputeType::BF16, KvType::BF16)] {
        let config = CpuConfig { compute, kv_dtype, ..EXACT };
        let vectors = embed(folder, config, whole, &cases);
        for (block_size, chunk, together) in [(16, 1024, false), (4, 7, true), (32, 16, false)] {
            assert_eq!(embed(folder, config, Cut { block_size, chunk, together }, &cases), vectors, "{compute:?}, {chunk}, {together}");
        }
    }
    for isa in [None, Some(Isa::Portable)] {
        let config = CpuConfig { compute: ComputeType::BF16, kv_dtype: KvType::BF16, isa, ..EXACT };
        let worst = worst(&cases, &embed(folder, config, whole, &cases).unwrap());
        assert!(worst < 1.25 * bf16.worst, "{isa:?}: {worst} where transformers has {}", bf16.worst);
    }
}
