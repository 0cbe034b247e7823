//! What a step costs before any model runs: `plan` and `apply` with 256 running sequences of 1,024 tokens each, one step at a time and
//! with the next one planned ahead.

use std::{
    collections::VecDeque,
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{Criterion, criterion_group, criterion_main};
use tokenflow_engine::{
    sampling::{SampledToken, SamplingParams},
    scheduler::{
        MAX_STEPS_IN_FLIGHT, Network, NewSequence, Pacing, Scheduler, SchedulerConfig, SequenceId, StepOutput, StepPlan, StreamSignal,
    },
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
fn decoding(pacing: Pacing, max_steps_in_flight: usize) -> Scheduler {
    let mut scheduler = Scheduler::new(SchedulerConfig {
        max_num_batched_tokens: 2048,
        max_num_seqs: SEQUENCES as usize,
        block_size: 16,
        num_blocks: SEQUENCES as usize * (CONTEXT + 256) / 16,
        max_model_len: 1 << 20,
        pacing: Pacing::Off,
        max_waiting: None,
        max_steps_in_flight,
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
        // One at a time here, also where two are allowed.
        let plan = scheduler.plan(Duration::ZERO, &MixedLinks).expect("there is work");
        let output = answer(&plan);
        scheduler.apply(&plan, output, Duration::ZERO);
    }
    scheduler.set_pacing(pacing);
    scheduler
}

fn step(c: &mut Criterion) {
    let alone = [("off", Pacing::Off, 1), ("global", Pacing::Global, 1), ("per-connection", Pacing::PerConnection, 1)];
    let ahead = [("off, ahead", Pacing::Off, MAX_STEPS_IN_FLIGHT), ("per-connection, ahead", Pacing::PerConnection, MAX_STEPS_IN_FLIGHT)];
    for (name, pacing, depth) in alone.into_iter().chain(ahead) {
        let start = decoding(pacing, depth);
        c.bench_function(&format!("scheduler step, 256 sequences, {name}"), |b| {
            b.iter_custom(|iterations| {
                let (mut scheduler, mut in_flight) = (start.clone(), VecDeque::new());
                let mut elapsed = Duration::ZERO;
                for i in 0..iterations {
                    if i % STEPS == STEPS - 1 {
                        (scheduler, in_flight) = (start.clone(), VecDeque::new());
                    }
                    let now = Duration::from_millis(20 * i);
                    let began = Instant::now();
                    let plan = black_box(scheduler.plan(now, &MixedLinks).expect("there is work"));
                    elapsed += began.elapsed();
                    in_flight.push_back((answer(&plan), plan));
                    if in_flight.len() == depth {
                        let (output, plan) = in_flight.pop_front().expect("it is not empty");
                        let began = Instant::now();
                        black_box(scheduler.apply(&plan, output, now));
                        drop(plan);
                        elapsed += began.elapsed();
                    }
                }
                elapsed
            });
        });
    }
}

criterion_group!(benches, step);
criterion_main!(benches);
