//! Everything that a request may ask of the sampler, held against the CPU's choices of the same model's logits.

use std::sync::Arc;

use tokenflow_engine::{
    executor::Executor,
    sampling::{LogitAdjustments, SamplingParams, TokenMask},
    scheduler::StepPlan,
};

use crate::{
    device::{exact, exactly_on_cpu, on_gpu, plan, prompt, share, tokens},
    weights::Model,
};

fn adjusted(adjustments: LogitAdjustments) -> SamplingParams {
    SamplingParams { adjustments: Some(Arc::new(adjustments)), ..SamplingParams::greedy() }
}

/// Steps of four requests each, all with a history of three output tokens.
fn steps(likeliest: u32) -> Vec<StepPlan> {
    let none = LogitAdjustments::default;
    let truncated = |seed| SamplingParams { temperature: 0.8, seed, ..SamplingParams::greedy() };
    let all = prompt(2, 9);
    let params = [
        SamplingParams::greedy(),
        adjusted(LogitAdjustments { allowed_token_ids: Some(vec![7, 19, 23]), ..none() }),
        adjusted(LogitAdjustments { bad_words: vec![vec![likeliest], vec![all[8], 3]], ..none() }),
        adjusted(LogitAdjustments { min_tokens: 5, stop_token_ids: vec![likeliest], ..none() }),
        adjusted(LogitAdjustments { logit_bias: vec![(11, 50.0), (likeliest, -50.0)], ..none() }),
        adjusted(LogitAdjustments { repetition_penalty: 1.7, ..none() }),
        adjusted(LogitAdjustments { frequency_penalty: 1.5, presence_penalty: 0.7, ..none() }),
        SamplingParams { constrained: true, ..SamplingParams::greedy() },
        SamplingParams { top_k: 5, ..truncated(1) },
        SamplingParams { top_p: 0.6, ..truncated(2) },
        SamplingParams { min_p: 0.2, logprobs: Some(4), ..truncated(3) },
        SamplingParams { top_k: 30, top_p: 0.9, min_p: 0.01, temperature: 1.3, ..truncated(4) },
    ];
    let step = |params: &[SamplingParams]| {
        let sequence = |(i, params): (usize, &SamplingParams)| {
            let mut share = share(i as u64, &all, 0, &[3 * i as u32, 3 * i as u32 + 1], Some((params, 3)));
            if params.constrained {
                share.sample.as_mut().unwrap().mask = Some(Arc::new(TokenMask::from_iter([3, 40, 41, 200])));
            }
            share
        };
        plan(params.iter().enumerate().map(sequence).collect())
    };
    params.chunks(4).map(step).collect()
}

#[test]
fn every_parameter_reaches_the_sampler() {
    let model = Model::new("mistral");
    let folder = &model.folder();
    let (gpu, cpu) = (&mut on_gpu(folder, exact()), &mut exactly_on_cpu(folder));
    let greedy = plan(vec![share(0, &prompt(2, 9), 0, &[0, 1], Some((&SamplingParams::greedy(), 3)))]);
    let likeliest = tokens(&cpu.execute(&greedy).unwrap())[0];
    let mut chosen = Vec::new();
    for step in steps(likeliest) {
        let (ours, theirs) = (gpu.execute(&step).unwrap(), cpu.execute(&step).unwrap());
        assert_eq!(tokens(&ours), tokens(&theirs), "{:?}", step.sequences.iter().map(|s| s.sample.clone()).collect::<Vec<_>>());
        for ((_, ours), (_, theirs)) in ours.sampled.iter().zip(&theirs.sampled) {
            assert_eq!((ours.logprob.is_some(), ours.top.len()), (theirs.logprob.is_some(), theirs.top.len()));
        }
        chosen.extend(tokens(&ours));
    }
    assert_eq!((chosen[0], chosen[4]), (likeliest, 11));
    assert!(chosen[1..4].iter().all(|token| *token != likeliest));
    assert!([3, 40, 41, 200].contains(&chosen[7]));
}
