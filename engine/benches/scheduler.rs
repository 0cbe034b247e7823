//! What a step costs before any model runs: `plan` and `apply` with 256 running sequences of 1,024 tokens each.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{Criterion, criterion_group, criterion_main};
use tokenflow_engine::{
    sampling::{SampledToken, SamplingParams},
    scheduler::{Network, NewSequence, Pacing, Scheduler, SchedulerConfig, SequenceId, StepOutput, StepPlan, StreamSignal},
};

const SEQUENCES: u64 = 256;
const CONTEXT: usize = 1024;
/// Steps before the state is set up afresh, so that contexts stay about as long as said.
const STEPS: u64 = 128;

/// One stream in eight is congested: half of the time its window is full.
struct MixedLinks;

impl Network for MixedLinks {
    fn health_factor(&self) -> f64 {
        0.9
    }

    fn stream(&self, id: SequenceId) -> Option<StreamSignal> {
        let congested = id.0.is_multiple_of(8);
        Some(StreamSignal {
            health: if congested { 0.4 } else { 1.0 },
            undelivered_bytes: if congested { (id.0 / 8 % 2) * 10_000 } else { 400 },
            delivery_rate_bytes_per_s: congested.then_some(5_000.0),
            min_rtt_us: Some(20_000),
            chunk_bytes: 220,
        })
    }
}

fn answer(plan: &StepPlan) -> StepOutput {
    let sampling = plan.sequences.iter().filter(|s| s.sample.is_some());
    let sampled = sampling.map(|s| (s.id, SampledToken { token: 1, logprob: None, top: Vec::new() })).collect();
    StepOutput { step: plan.step, sampled, ..StepOutput::default() }
}

/// All sequences admitted, prefilled and decoding.
fn decoding(pacing: Pacing) -> Scheduler {
    let mut scheduler = Scheduler::new(SchedulerConfig {
        max_num_batched_tokens: 2048,
        max_num_seqs: SEQUENCES as usize,
        block_size: 16,
        num_blocks: SEQUENCES as usize * (CONTEXT + 256) / 16,
        max_model_len: 1 << 20,
        pacing: Pacing::Off,
        max_waiting: None,
        ..SchedulerConfig::default()
    });
    for id in 0..SEQUENCES {
        let prompt = vec![id as u32; CONTEXT];
        let (stop_token_ids, sampling) = (vec![0], SamplingParams::greedy());
        let id = SequenceId(id);
        let new = NewSequence {
            id,
            prompt,
            max_tokens: 1 << 16,
            stop_token_ids,
            sampling,
            streamed: true,
            arrival: Duration::ZERO,
            priority: 0,
            cache_salt: None,
            group: None,
            deadline: None,
            start_by: None,
            tenant: None,
            connection: None,
        };
        scheduler.add(new).expect("the pool holds all");
    }
    while scheduler.stats().decode_tokens < SEQUENCES as usize {
        let plan = scheduler.plan(Duration::ZERO, &MixedLinks).expect("there is work");
        let output = answer(&plan);
        scheduler.apply(&plan, output, Duration::ZERO);
    }
    scheduler.set_pacing(pacing);
    scheduler
}

fn step(c: &mut Criterion) {
    for (name, pacing) in [("off", Pacing::Off), ("global", Pacing::Global), ("per-connection", Pacing::PerConnection)] {
        let start = decoding(pacing);
        c.bench_function(&format!("scheduler step, 256 sequences, {name}"), |b| {
            b.iter_custom(|iterations| {
                let mut scheduler = start.clone();
                let mut elapsed = Duration::ZERO;
                for i in 0..iterations {
                    if i % STEPS == STEPS - 1 {
                        scheduler = start.clone();
                    }
                    let now = Duration::from_millis(20 * i);
                    let began = Instant::now();
                    let plan = black_box(scheduler.plan(now, &MixedLinks).expect("there is work"));
                    elapsed += began.elapsed();
                    let output = answer(&plan);
                    let began = Instant::now();
                    black_box(scheduler.apply(&plan, output, now));
                    drop(plan);
                    elapsed += began.elapsed();
                }
                elapsed
            });
        });
    }
}

criterion_group!(benches, step);
criterion_main!(benches);
