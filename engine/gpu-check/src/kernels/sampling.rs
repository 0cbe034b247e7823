//! Choosing tokens, and how likely they are: the same tokens as the CPU sampler, not merely similar ones.

use anyhow::{Context, bail};
use tokenflow_engine::backend::cuda::args;
use tokenflow_engine::{
    sampling::{SamplingParams, sample, score},
    scheduler::SampleRequest,
};

use super::{Check, Random};
use crate::card::{Card, Device};

/// Rows of logits as models make them: a few likely tokens, many unlikely ones, some equal, some broken.
fn logits(random: &mut Random, kind: usize, len: usize) -> Vec<f32> {
    let mut row: Vec<f32> = match kind {
        0 => random.values(len).iter().map(|v| v * 12.0).collect(),
        1 => random.values(len).iter().map(|v| (v * 12.0).powi(3) / 60.0).collect(),
        2 => vec![1.5; len],
        3 => (0..len).map(|_| random.below(5) as f32).collect(),
        _ => random.values(len),
    };
    if kind == 4 && len > 9 {
        (row[1], row[3], row[7]) = (f32::NAN, f32::NEG_INFINITY, 2.0);
    }
    if kind == 5 {
        row.fill(f32::NEG_INFINITY);
        row[len / 2] = f32::NAN;
    }
    row
}

fn request(random: &mut Random) -> SampleRequest {
    let params = SamplingParams {
        temperature: random.one_of(&[0.0, 0.3, 0.7, 1.0, 1.6]),
        top_p: random.one_of(&[1.0, 1.0, 0.95, 0.5, 0.1, 0.0]),
        top_k: random.one_of(&[0, 0, 1, 3, 50, 100_000]),
        min_p: random.one_of(&[0.0, 0.0, 0.05, 0.4, 1.0]),
        seed: random.bits(),
        ..SamplingParams::greedy()
    };
    SampleRequest::after(&params, &[], random.below(3000))
}

fn device_params(request: &SampleRequest) -> args::SampleParams {
    let params = &request.params;
    let inverse = 1.0 / params.temperature;
    args::SampleParams {
        seed: params.seed,
        position: request.output_position as u64,
        temperature: params.temperature,
        top_p: params.top_p,
        min_p_offset: params.min_p.ln() / inverse,
        has_min_p: u32::from(params.min_p > 0.0),
        top_k: params.top_k,
        unused: 0,
    }
}

/// Each of `rows` as the CPU sampler chooses.
fn choose(card: &Card, rows: &[Vec<f32>], requests: &[SampleRequest], threads: u32) -> anyhow::Result<()> {
    let (device, vocabulary) = (Device::new(card)?, rows[0].len());
    let params: Vec<_> = requests.iter().map(device_params).collect();
    let (total, out) = (rows.len() * vocabulary, device.allocate::<u32>(rows.len())?);
    let args = args::Sample {
        logits: device.upload(&rows.concat())?,
        params: device.upload(&params)?,
        values: device.allocate::<f32>(total)?,
        ids: device.allocate::<u32>(total)?,
        out,
        vocabulary: vocabulary as u32,
        unused: 0,
    };
    device.launch("sample", [rows.len() as u32, 1, 1], threads, 0, &args)?;
    for (i, (found, (row, request))) in device.download::<u32>(out, rows.len())?.into_iter().zip(rows.iter().zip(requests)).enumerate() {
        let expected = sample(row, request).token;
        if found != expected {
            bail!("row {i} of {vocabulary}: token {found}, not {expected}, for {:?}", request.params);
        }
    }
    Ok(())
}

pub fn tokens(card: &Card) -> anyhow::Result<()> {
    for seed in 0..12 {
        let mut random = Random(seed);
        let (rows, vocabulary) = (12, [1, 17, 511, 512, 513, 1300, 5000][seed as usize % 7]);
        let rows: Vec<Vec<f32>> = (0..rows).map(|i| logits(&mut random, i % 6, vocabulary)).collect();
        let requests: Vec<SampleRequest> = rows.iter().map(|_| request(&mut random)).collect();
        choose(card, &rows, &requests, random.one_of(&[64, 256])).with_context(|| format!("seed {seed}"))?;
    }
    Ok(())
}

/// A row as large models have them, by as many threads as the engine launches.
fn large_vocabulary(card: &Card) -> anyhow::Result<()> {
    let mut random = Random(77);
    let row = logits(&mut random, 1, 128_256);
    // Whatever both bounds leave has weight: all digits of the search and most chunks of the draw are used.
    let params = SamplingParams { temperature: 1.6, top_p: 0.95, top_k: 90_000, seed: random.bits(), ..SamplingParams::greedy() };
    choose(card, &[row], &[SampleRequest::after(&params, &[], 5)], 1024)
}

pub fn likelihoods(card: &Card) -> anyhow::Result<()> {
    const MAX_TOP: usize = 6;
    for seed in 0..6 {
        let mut random = Random(seed);
        let vocabulary = [1, 17, 512, 1300, 600, 5][seed as usize];
        let rows: Vec<Vec<f32>> = (0..5).map(|kind| logits(&mut random, kind, vocabulary)).collect();
        let tokens: Vec<u32> = rows.iter().map(|_| random.below(vocabulary) as u32).collect();
        let tops: Vec<u32> = rows.iter().map(|_| random.below(MAX_TOP.min(vocabulary) + 1) as u32).collect();
        let device = Device::new(card)?;
        let (logprobs, ranks) = (device.allocate::<f32>(rows.len())?, device.allocate::<u32>(rows.len())?);
        let (top_ids, top_logprobs) = (device.allocate::<u32>(rows.len() * MAX_TOP)?, device.allocate::<f32>(rows.len() * MAX_TOP)?);
        let args = args::Logprobs {
            logits: device.upload(&rows.concat())?,
            tokens: device.upload(&tokens)?,
            num_top: device.upload(&tops)?,
            logprobs,
            ranks,
            top_ids,
            top_logprobs,
            vocabulary: vocabulary as u32,
            max_top: MAX_TOP as u32,
        };
        device.launch("logprobs", [rows.len() as u32, 1, 1], 128, 0, &args)?;
        let (logprobs, ranks) = (device.download(logprobs, rows.len())?, device.download::<u32>(ranks, rows.len())?);
        let (ids, values) = (device.download(top_ids, rows.len() * MAX_TOP)?, device.download(top_logprobs, rows.len() * MAX_TOP)?);
        for (i, row) in rows.iter().enumerate() {
            let expected = score(row, tokens[i], tops[i] as usize);
            let bits = |v: f32| if v.is_nan() { u32::MAX } else { v.to_bits() };
            let top = expected
                .token
                .top
                .iter()
                .enumerate()
                .all(|(k, &(id, logprob))| (ids[i * MAX_TOP + k], bits(values[i * MAX_TOP + k])) == (id, bits(logprob)));
            let own = expected.token.logprob.expect("scored");
            if !top || bits(logprobs[i]) != bits(own) || ranks[i] as usize != expected.rank {
                let found = (logprobs[i], ranks[i], &ids[i * MAX_TOP..][..MAX_TOP], &values[i * MAX_TOP..][..MAX_TOP]);
                bail!("seed {seed}, row {i} of {vocabulary}: {found:?}, not {expected:?}");
            }
        }
    }
    Ok(())
}

pub const CHECKS: &[Check] = &[
    Check { name: "sampled tokens", run: tokens },
    Check { name: "a token of a large vocabulary", run: large_vocabulary },
    Check { name: "likelihoods", run: likelihoods },
];
