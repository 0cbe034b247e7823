//! What choosing one token costs over a vocabulary of 151,936 (Qwen3's).

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use tokenflow_engine::{
    sampling::{LogitAdjustments, SamplingParams, TokenMask, sample},
    scheduler::SampleRequest,
};

fn sampling(c: &mut Criterion) {
    let logits: Vec<f32> = (0..151_936u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 1e6 - 8.0).collect();
    let greedy = SamplingParams::greedy();
    let warm = SamplingParams { temperature: 0.8, seed: 3, ..greedy.clone() };
    let penalties = LogitAdjustments { repetition_penalty: 1.1, frequency_penalty: 0.5, ..LogitAdjustments::default() };
    let cases = [
        ("greedy", greedy.clone()),
        ("greedy_logprobs_5", SamplingParams { logprobs: Some(5), ..greedy.clone() }),
        ("temperature", warm.clone()),
        ("top_k_20", SamplingParams { top_k: 20, ..warm.clone() }),
        ("min_p", SamplingParams { min_p: 0.05, ..warm.clone() }),
        ("top_p", SamplingParams { top_p: 0.95, ..warm.clone() }),
        ("top_k_20_top_p", SamplingParams { top_k: 20, top_p: 0.95, ..warm }),
        ("penalties_4096", SamplingParams { adjustments: Some(Arc::new(penalties)), ..greedy.clone() }),
        ("mask_half", SamplingParams { constrained: true, ..greedy }),
    ];
    let history: Vec<u32> = (0..4096u32).map(|i| i.wrapping_mul(2_654_435_761) % 151_936).collect();
    let half: Arc<TokenMask> = Arc::new((0..151_936).filter(|id| id % 2 == 0).collect());
    for (name, params) in cases {
        let mut request = SampleRequest::after(&params, &history, 7);
        request.mask = params.constrained.then(|| half.clone());
        c.bench_function(&format!("sample/{name}"), |b| b.iter(|| sample(black_box(&logits), &request)));
    }
}

criterion_group!(benches, sampling);
criterion_main!(benches);
