//! Changes to logits before a token is chosen. The CPU's are seen through its greedy choice, so that each row is asked for its best token
//! again and again, each time without those before.

use std::sync::Arc;

use anyhow::{Context, bail};
use tokenflow_engine::backend::cuda::args;
use tokenflow_engine::{
    sampling::{LogitAdjustments, SamplingParams, TokenMask, sample},
    scheduler::SampleRequest,
};

use super::{Check, Random};
use crate::card::{Card, Device};

const VOCABULARY: usize = 150;

fn ids(random: &mut Random, len: usize) -> Vec<u32> {
    // Some are beyond the vocabulary.
    (0..len).map(|_| random.below(VOCABULARY + 5) as u32).collect()
}

fn request(random: &mut Random, everything_forbidden: bool) -> SampleRequest {
    let history: Vec<u32> = (0..random.within(0..=60)).map(|_| random.below(VOCABULARY / 3) as u32).collect();
    let output_position = random.below(history.len() + 1);
    let output = &history[history.len() - output_position..];
    let mut bad_words: Vec<Vec<u32>> =
        (0..4).map(|_| (0..random.within(1..=3)).map(|_| random.below(VOCABULARY) as u32).collect()).collect();
    if output.len() > 2 {
        // One that does apply.
        bad_words.push([&output[output.len() - 2..], &[random.below(VOCABULARY) as u32]].concat());
    }
    let stop = random.within(0..=3);
    let adjustments = LogitAdjustments {
        allowed_token_ids: if everything_forbidden { Some(vec![]) } else { (random.below(3) == 0).then(|| ids(random, 40)) },
        bad_words,
        min_tokens: random.below(80),
        stop_token_ids: ids(random, stop),
        logit_bias: ids(random, 6).into_iter().chain([3, 3]).map(|id| (id, random.value() * 4.0)).collect(),
        repetition_penalty: random.one_of(&[1.0, 1.3, 0.8]),
        frequency_penalty: random.one_of(&[0.0, 0.4, -0.3]),
        presence_penalty: random.one_of(&[0.0, 0.6]),
    };
    let params = SamplingParams { adjustments: Some(Arc::new(adjustments)), ..SamplingParams::greedy() };
    let mask = (random.below(2) == 0).then(|| Arc::new((0..VOCABULARY as u32).filter(|_| random.below(3) > 0).collect::<TokenMask>()));
    SampleRequest { params, output_position, history: Some(history), mask }
}

/// What the device is told: the same, as lists in one array.
fn device_params(request: &SampleRequest, lists: &mut Vec<u32>) -> args::AdjustParams {
    let mut list = |values: Vec<u32>| {
        let start = lists.len() as u32;
        lists.extend(values);
        [start, lists.len() as u32]
    };
    let adjustments = request.params.adjustments.as_deref().expect("given");
    let (prompt, output) =
        request.history.as_deref().expect("given").split_at(request.history.as_ref().expect("given").len() - request.output_position);
    let mask = request.mask.as_ref().map(|mask| {
        let words = VOCABULARY.div_ceil(32) as u32;
        (0..words).map(|w| (0..32).filter(|bit| mask.allows(w * 32 + bit)).fold(0, |word, bit| word | 1 << bit)).collect()
    });
    let before_min = request.output_position < adjustments.min_tokens;
    args::AdjustParams {
        has_mask: u32::from(mask.is_some()),
        mask: list(mask.unwrap_or_default()),
        has_allowed: u32::from(adjustments.allowed_token_ids.is_some()),
        allowed: list(adjustments.allowed_token_ids.clone().unwrap_or_default()),
        forbidden: list(if before_min { adjustments.stop_token_ids.clone() } else { vec![] }),
        bad_words: list(adjustments.bad_words.iter().flat_map(|word| [&[word.len() as u32][..], word].concat()).collect()),
        biases: list(adjustments.logit_bias.iter().flat_map(|(id, bias)| [*id, bias.to_bits()]).collect()),
        prompt: list(prompt.to_vec()),
        output: list(output.to_vec()),
        repetition_penalty: adjustments.repetition_penalty,
        frequency_penalty: adjustments.frequency_penalty,
        presence_penalty: adjustments.presence_penalty,
    }
}

pub fn adjust(card: &Card) -> anyhow::Result<()> {
    for seed in 0..10 {
        let mut random = Random(seed);
        let requests: Vec<SampleRequest> = (0..6).map(|i| request(&mut random, i == 5)).collect();
        let logits: Vec<f32> = random.values(requests.len() * VOCABULARY).iter().map(|v| v * 5.0).collect();
        let device = Device::new(card)?;
        let mut lists = Vec::new();
        let params: Vec<_> = requests.iter().map(|request| device_params(request, &mut lists)).collect();
        let (out, counts) = (device.allocate::<f32>(logits.len())?, device.upload(&vec![0u32; logits.len()])?);
        let args = args::Adjust {
            logits: device.upload(&logits)?,
            out,
            params: device.upload(&params)?,
            lists: device.upload(&lists)?,
            counts,
            vocabulary: VOCABULARY as u32,
            unused: 0,
        };
        device.launch("adjust_logits", [requests.len() as u32, 1, 1], 64, 0, &args)?;
        if device.download::<u32>(counts, logits.len())?.iter().any(|&count| count != 0) {
            bail!("seed {seed}: counts are left behind");
        }
        let found = device.download(out, logits.len())?;
        for (i, request) in requests.iter().enumerate() {
            let (raw, row) = (&logits[i * VOCABULARY..][..VOCABULARY], &found[i * VOCABULARY..][..VOCABULARY]);
            same_ranking(raw, row, request).with_context(|| format!("seed {seed}, row {i}"))?;
        }
    }
    Ok(())
}

/// Whether the best token of `row` is what the CPU chooses of `raw`, and so on for the next, down to the last that may be chosen.
fn same_ranking(raw: &[f32], row: &[f32], request: &SampleRequest) -> anyhow::Result<()> {
    let (mut request, mut row) = (request.clone(), row.to_vec());
    let mut allowed: Vec<u32> = (0..VOCABULARY as u32).filter(|&id| request.mask.as_ref().is_none_or(|mask| mask.allows(id))).collect();
    while row.iter().any(|&v| v > f32::NEG_INFINITY) {
        request.mask = Some(Arc::new(allowed.iter().copied().collect()));
        let expected = sample(raw, &request).token;
        let found = (0..VOCABULARY).fold(0, |best, i| if row[i] > row[best] { i } else { best });
        if found as u32 != expected {
            bail!("{} tokens are left, and the best is {found}, not {expected}", allowed.len());
        }
        row[found] = f32::NEG_INFINITY;
        allowed.retain(|&id| id != found as u32);
    }
    Ok(())
}

pub const CHECKS: &[Check] = &[Check { name: "adjusted logits", run: adjust }];
