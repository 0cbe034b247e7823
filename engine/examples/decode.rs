//! Times a model on the CPU backend, without scheduler or server: prefill of 256 tokens per sequence, then 63 decode steps.
//!
//! `cargo run --release -p tokenflow-engine --example decode -- --model DIR [--batch 1 8] [--threads N] [--compute bf16|f32]`

use std::{path::PathBuf, time::Instant};

use anyhow::Context;
use clap::Parser;
use tokenflow_engine::{
    backend::cpu::{ComputeType, CpuBackend, CpuConfig, KvType},
    executor::{CacheSize, Executor, LocalExecutor},
    kv::BlockId,
    model::{self, ModelConfig},
    sampling::SamplingParams,
    scheduler::{SampleRequest, ScheduledSequence, SequenceId, StepPlan},
    weights::{Checkpoint, Loader},
};

const BLOCK_SIZE: usize = 16;

#[derive(Parser)]
struct Arguments {
    /// Hugging Face folder.
    #[arg(long)]
    model: PathBuf,
    /// Numbers of sequences that decode together.
    #[arg(long, num_args = 1.., default_values_t = [1, 8])]
    batch: Vec<usize>,
    /// 0 takes all cores.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    #[arg(long, default_value = "bf16", value_parser = ["bf16", "f32"])]
    compute: String,
    #[arg(long, default_value_t = 256)]
    prompt: usize,
    #[arg(long, default_value_t = 63)]
    steps: usize,
    /// The first round warms up.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let (compute, kv_dtype) = if arguments.compute == "f32" { (ComputeType::F32, KvType::F32) } else { (ComputeType::BF16, KvType::BF16) };
    let started = Instant::now();
    let config = ModelConfig::open(&arguments.model)?;
    let checkpoint = Checkpoint::open(&arguments.model)?;
    let backend = CpuBackend::new(CpuConfig { threads: arguments.threads, compute, kv_dtype, ..CpuConfig::default() })?;
    let model = model::load(&config, Loader::new(&checkpoint), &backend, 0..config.num_layers)?;
    println!("loaded {:.2} GB in {:.2} s", checkpoint.num_bytes() as f64 / 1e9, started.elapsed().as_secs_f64());

    let blocks_each = (arguments.prompt + arguments.steps).div_ceil(BLOCK_SIZE);
    let largest = *arguments.batch.iter().max().context("--batch needs a number")?;
    let cache = CacheSize { num_blocks: largest * blocks_each, num_host_blocks: 0, block_size: BLOCK_SIZE };
    let mut executor = LocalExecutor::new(backend, model, cache, arguments.prompt.max(largest))?;
    let token = |i: usize| (100 + i % (config.vocab_size - 100)) as u32;
    let share = |s: usize, tokens: Vec<u32>, start: usize| ScheduledSequence {
        id: SequenceId(s as u64),
        tokens,
        start,
        block_table: (0..blocks_each).map(|b| BlockId((s * blocks_each + b) as u32)).collect(),
        sample: Some(SampleRequest::after(&SamplingParams::greedy(), &[], 0)),
        num_draft_tokens: 0,
        pending: None,
    };
    for batch in arguments.batch {
        for _ in 0..arguments.rounds {
            let mut prefills = Vec::new();
            for s in 0..batch {
                let sequences = vec![share(s, (0..arguments.prompt).map(token).collect(), 0)];
                prefills.push(timed(&mut executor, sequences)?);
            }
            let mut steps = Vec::new();
            for k in 0..arguments.steps {
                steps.push(timed(&mut executor, (0..batch).map(|s| share(s, vec![token(k)], arguments.prompt + k)).collect())?);
            }
            let (prefill, decode) = (median(&mut prefills), median(&mut steps));
            println!(
                "batch {batch}: prefill {:.0} tok/s ({:.0} ms a prompt), decode {:.1} tok/s ({:.1} ms a step; fastest {:.1}, mean {:.1})",
                arguments.prompt as f64 / prefill,
                1e3 * prefill,
                batch as f64 / decode,
                1e3 * decode,
                1e3 * steps[0],
                1e3 * steps.iter().sum::<f64>() / steps.len() as f64,
            );
        }
    }
    Ok(())
}

fn timed(executor: &mut dyn Executor, sequences: Vec<ScheduledSequence>) -> anyhow::Result<f64> {
    let started = Instant::now();
    executor.execute(&StepPlan { sequences, ..StepPlan::default() })?;
    Ok(started.elapsed().as_secs_f64())
}

/// Sorts `seconds`. The median tells more than the mean on a machine that does other work too.
fn median(seconds: &mut [f64]) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}
