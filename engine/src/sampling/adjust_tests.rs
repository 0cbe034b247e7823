use std::{collections::BTreeSet, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::sampling::{SamplingParams, TokenMask, sample};

const VOCAB: usize = 96;

fn request(adjustments: LogitAdjustments, prompt: &[u32], output: &[u32], mask: Option<TokenMask>) -> SampleRequest {
    let params = SamplingParams { adjustments: Some(Arc::new(adjustments)), constrained: mask.is_some(), ..SamplingParams::greedy() };
    let tokens = [prompt, output].concat();
    let mut request = SampleRequest::after(&params, &tokens, output.len());
    assert_eq!(request.history.is_some(), params.reads_history());
    request.mask = mask.map(Arc::new);
    request
}

/// Token by token, by the definitions.
fn naive(logits: &[f32], a: &LogitAdjustments, prompt: &[u32], output: &[u32]) -> Vec<f32> {
    (0..logits.len() as u32)
        .map(|id| {
            let mut logit = logits[id as usize];
            let allowed = a.allowed_token_ids.as_ref().is_none_or(|ids| ids.contains(&id));
            let bad = a.bad_words.iter().any(|word| {
                let start = &word[..word.len() - 1];
                word[word.len() - 1] == id && output.len() >= start.len() && output[output.len() - start.len()..] == *start
            });
            if !allowed || bad || (output.len() < a.min_tokens && a.stop_token_ids.contains(&id)) {
                logit = f32::NEG_INFINITY;
            }
            for &(biased, bias) in &a.logit_bias {
                logit += if biased == id { bias } else { 0.0 };
            }
            if prompt.contains(&id) || output.contains(&id) {
                logit = if logit > 0.0 { logit / a.repetition_penalty } else { logit * a.repetition_penalty };
            }
            let count = output.iter().filter(|&&t| t == id).count();
            logit -= a.frequency_penalty * count as f32;
            logit - a.presence_penalty * f32::from(u8::from(count > 0))
        })
        .collect()
}

fn ids(max: usize) -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(0..VOCAB as u32, 0..max)
}

prop_compose! {
    fn adjustments()(
        allowed in prop::option::weighted(0.3, prop::collection::vec(0..VOCAB as u32, 1..40)),
        bad_words in prop::collection::vec(prop::collection::vec(0..6u32, 1..4), 0..6),
        min_tokens in 0usize..8,
        stop_token_ids in ids(4),
        bias in prop::collection::btree_map(0..VOCAB as u32, -100.0f32..100.0, 0..6),
        repetition_penalty in prop::sample::select(vec![1.0f32, 0.5, 1.3, 2.0]),
        frequency_penalty in prop::sample::select(vec![0.0f32, -2.0, 0.4, 2.0]),
        presence_penalty in prop::sample::select(vec![0.0f32, -1.5, 0.7]),
    ) -> LogitAdjustments {
        let logit_bias = bias.into_iter().collect();
        LogitAdjustments {
            allowed_token_ids: allowed, bad_words, min_tokens, stop_token_ids, logit_bias, repetition_penalty, frequency_penalty, presence_penalty,
        }
    }
}

fn logits() -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec(-20.0f32..20.0, VOCAB)
}

proptest! {
    #[test]
    fn adjustments_equal_their_definitions(logits in logits(), a in adjustments(), prompt in ids(30), output in ids(12)) {
        let expected = naive(&logits, &a, &prompt, &output);
        prop_assume!(expected.iter().any(|v| v.is_finite()));
        let request = request(a, &prompt, &output, None);
        prop_assert_eq!(adjusted(&logits, &request).into_owned(), expected);
    }

    #[test]
    fn a_mask_is_never_broken(
        logits in logits(), a in adjustments(), allowed in prop::collection::btree_set(0..VOCAB as u32, 1..8),
        prompt in ids(30), output in ids(12), temperature in prop::sample::select(vec![0.0f32, 0.7, 3.0]), broken in any::<bool>(), seed: u64,
    ) {
        let logits = if broken { vec![f32::NAN; VOCAB] } else { logits };
        let mut request = request(a.clone(), &prompt, &output, Some(allowed.iter().copied().collect()));
        request.params = SamplingParams { temperature, seed, top_p: 0.9, top_k: 20, min_p: 0.01, ..request.params };
        let sampled = sample(&logits, &request);
        prop_assert!(allowed.contains(&sampled.token), "{} of {:?}", sampled.token, allowed);
        let possible: BTreeSet<u32> = allowed.into_iter().filter(|&id| naive(&logits, &a, &prompt, &output)[id as usize].is_finite()).collect();
        prop_assert!(possible.is_empty() || possible.contains(&sampled.token), "{} of {:?}", sampled.token, possible);
    }

    #[test]
    fn logprobs_are_of_the_raw_logits(logits in logits(), a in adjustments(), output in ids(12)) {
        let mut request = request(a, &[], &output, None);
        request.params.logprobs = Some(3);
        let sampled = sample(&logits, &request);
        let plain = SamplingParams { logprobs: Some(3), ..SamplingParams::greedy() };
        prop_assert_eq!(sampled.top, sample(&logits, &SampleRequest::after(&plain, &output, output.len())).top);
    }

    #[test]
    fn neutral_adjustments_change_nothing(logits in logits(), prompt in ids(30), output in ids(12)) {
        let request = request(LogitAdjustments::default(), &prompt, &output, None);
        prop_assert_eq!(adjusted(&logits, &request).into_owned(), logits);
    }
}

#[test]
fn ids_outside_the_vocabulary_are_harmless() {
    let a = LogitAdjustments {
        allowed_token_ids: Some(vec![5, 900]),
        bad_words: vec![vec![901]],
        min_tokens: 3,
        stop_token_ids: vec![902],
        logit_bias: vec![(903, 5.0)],
        repetition_penalty: 2.0,
        frequency_penalty: 1.0,
        presence_penalty: 1.0,
    };
    assert_eq!(sample(&[0.5; 8], &request(a, &[904], &[905], None)).token, 5);
}

#[test]
fn nothing_left_falls_back_to_what_the_grammar_allows() {
    let a = LogitAdjustments { min_tokens: 4, stop_token_ids: vec![2], ..LogitAdjustments::default() };
    let only_stop: TokenMask = [2].into_iter().collect();
    assert_eq!(sample(&[3.0, 1.0, 0.0], &request(a, &[], &[], Some(only_stop))).token, 2);
    let a = LogitAdjustments { allowed_token_ids: Some(vec![1]), bad_words: vec![vec![1]], ..LogitAdjustments::default() };
    assert_eq!(sample(&[3.0, 1.0, 0.0], &request(a, &[], &[], None)).token, 0);
}

#[derive(serde::Deserialize)]
struct Reference {
    logits: Vec<f32>,
    prompt: Vec<u32>,
    output: Vec<u32>,
    repetition_penalty: f32,
    frequency_penalty: f32,
    presence_penalty: f32,
    logit_bias: Vec<(u32, f32)>,
    min_tokens: usize,
    stop_token_ids: Vec<u32>,
    /// Null for minus infinity.
    expected: Vec<Option<f32>>,
}

/// `testdata/adjust.py` made them with transformers' processors and vLLM's penalties.
#[test]
fn adjustments_are_those_of_transformers_and_vllm() {
    let references: Vec<Reference> = serde_json::from_str(include_str!("testdata/adjust.json")).unwrap();
    for (i, reference) in references.into_iter().enumerate() {
        let adjustments = LogitAdjustments {
            repetition_penalty: reference.repetition_penalty,
            frequency_penalty: reference.frequency_penalty,
            presence_penalty: reference.presence_penalty,
            logit_bias: reference.logit_bias,
            min_tokens: reference.min_tokens,
            stop_token_ids: reference.stop_token_ids,
            ..LogitAdjustments::default()
        };
        let request = request(adjustments, &reference.prompt, &reference.output, None);
        for (id, (ours, theirs)) in adjusted(&reference.logits, &request).iter().zip(&reference.expected).enumerate() {
            match theirs {
                None => assert_eq!(*ours, f32::NEG_INFINITY, "case {i}, token {id}"),
                Some(theirs) => assert!((ours - theirs).abs() < 1e-5, "case {i}, token {id}: {ours} for {theirs}"),
            }
        }
    }
}
