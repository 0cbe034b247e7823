//! Whole models, one of each architecture, say the same on the card as on the CPU: through the engine, with prompts of many lengths cut into
//! chunks and decoded in one batch.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use tokenflow_engine::{
    cli::{DTypeArg, DeviceArg},
    sampling::SampledToken,
};

use crate::{
    kernels::Random,
    models::{FAMILIES, Family},
    running::{Request, Running, Said, config},
    sections::{Settings, Teller},
};

/// Of log-probabilities in f32.
const TOLERANCE: f32 = 1e-3;
/// What bf16 may lose more than transformers' own bf16 does: kernels round at other places.
const BF16_MARGIN: f32 = 1.5;
/// Reported beside each token.
const TOP: u32 = 5;

/// # Errors
/// When no folder for models can be made.
pub fn run(settings: &Settings, teller: &Teller) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir()?;
    let device: DeviceArg = settings.device.parse().map_err(anyhow::Error::msg)?;
    // Emulated, each costs seconds: an ordinary one and one with experts.
    let families = FAMILIES.iter().filter(|family| !settings.tiny || ["yarn", "qwen3-moe"].contains(&family.name));
    for family in families {
        let folder = scratch.path().join(family.name);
        family.write(&folder)?;
        let requests = requests(settings.tiny);
        let mut expected = None;
        for (dtype, name) in [(DTypeArg::Float32, "float32"), (DTypeArg::Bfloat16, "bfloat16")] {
            teller.check(&format!("parity {} {name}", family.name), None, || {
                if expected.is_none() {
                    expected = Some(answers(&folder, DeviceArg::Cpu, DTypeArg::Float32, &requests)?);
                }
                let found = answers(&folder, device, dtype, &requests)?;
                let tolerance = tolerance(family, dtype)?;
                let worst = compare(expected.as_ref().context("made above")?, &found, tolerance)?;
                teller.deviation(worst, tolerance);
                Ok(())
            });
        }
    }
    Ok(())
}

fn tolerance(family: &Family, dtype: DTypeArg) -> anyhow::Result<f32> {
    Ok(if dtype == DTypeArg::Float32 { TOLERANCE } else { BF16_MARGIN * family.bf16_deviation()? })
}

/// Prompts of any bytes, some shorter than a block and some longer than a step.
fn requests(tiny: bool) -> Vec<Request> {
    let mut random = Random(7);
    let (lengths, max_tokens): (&[usize], usize) = if tiny { (&[1, 21], 3) } else { (&[1, 5, 16, 33, 64, 100, 17, 90], 16) };
    let prompt =
        |&length: &usize| Request { prompt: (0..length).map(|_| random.below(256) as u32).collect(), max_tokens, logprobs: Some(TOP) };
    lengths.iter().map(prompt).collect()
}

fn answers(folder: &Path, device: DeviceArg, dtype: DTypeArg, requests: &[Request]) -> anyhow::Result<Vec<Said>> {
    let mut config = config(folder, device, dtype);
    config.max_num_batched_tokens = 48;
    config.max_num_seqs = 8;
    config.num_blocks = Some(128);
    config.max_model_len = Some(128);
    Running::start(&config)?.ask(requests)
}

/// The greatest difference of a log-probability. Where another token was chosen, the reference must have held both for about as likely;
/// what follows is another text then.
fn compare(expected: &[Said], found: &[Said], tolerance: f32) -> anyhow::Result<f32> {
    let mut worst = 0f32;
    let mut compared = 0;
    for (i, (expected, found)) in expected.iter().zip(found).enumerate() {
        ensure!(expected.tokens.len() == found.tokens.len(), "sequence {i}: {} tokens, not {}", found.tokens.len(), expected.tokens.len());
        for (position, (e, f)) in expected.tokens.iter().zip(&found.tokens).enumerate() {
            let place = || format!("sequence {i}, token {position}");
            let own = logprob(e, e.token).with_context(place)?;
            let Some(other) = logprob(e, f.token) else { bail!("{}: {}, not {}", place(), f.token, e.token) };
            if own - other > 2.0 * tolerance {
                bail!("{}: {} at {other}, not {} at {own}", place(), f.token, e.token);
            }
            let difference = (other - logprob(f, f.token).with_context(place)?).abs();
            // NaN is no small difference.
            if difference.is_nan() || difference > tolerance {
                bail!("{}: a log-probability is off by {difference}, more than {tolerance}", place());
            }
            worst = worst.max(difference);
            compared += 1;
            if e.token != f.token {
                break;
            }
        }
    }
    ensure!(compared >= expected.len(), "nothing was compared");
    Ok(worst)
}

/// What `said` holds of a token, if it reported it.
fn logprob(said: &SampledToken, token: u32) -> Option<f32> {
    if said.token == token && said.logprob.is_some() {
        return said.logprob;
    }
    said.top.iter().find(|(id, _)| *id == token).map(|(_, logprob)| *logprob)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(tokens: &[(u32, f32, (u32, f32))]) -> Vec<Said> {
        let token = |&(token, logprob, other)| SampledToken { token, logprob: Some(logprob), top: vec![(token, logprob), other] };
        vec![Said { tokens: tokens.iter().map(token).collect(), at: Vec::new() }]
    }

    #[test]
    fn another_token_may_only_come_where_both_are_about_as_likely() {
        let expected = said(&[(1, -0.5, (2, -1.5)), (3, -1.0, (4, -1.0001))]);
        assert_eq!(compare(&expected, &expected, 1e-3).unwrap(), 0.0);
        let near = said(&[(1, -0.5, (2, -1.5)), (4, -1.0, (3, -1.0))]);
        assert!(compare(&expected, &near, 1e-3).unwrap() < 2e-4);
        let wrong = said(&[(2, -0.5, (1, -1.5)), (3, -1.0, (4, -1.1))]);
        assert!(compare(&expected, &wrong, 1e-3).unwrap_err().to_string().contains("token 0: 2 at -1.5, not 1"));
        let unheard_of = said(&[(9, -0.5, (1, -1.5)), (3, -1.0, (4, -1.1))]);
        assert!(compare(&expected, &unheard_of, 1e-3).is_err());
        let off = said(&[(1, -0.6, (2, -1.5)), (3, -1.0, (4, -1.1))]);
        assert!(compare(&expected, &off, 1e-3).unwrap_err().to_string().contains("off by 0.1"));
        let nan = said(&[(1, f32::NAN, (2, -1.5)), (3, -1.0, (4, -1.1))]);
        assert!(compare(&expected, &nan, 1e-3).is_err());
    }
}
