//! A tiny model as transformers sees it, where Python has it: the CPU backend, with which the card is compared, is compared with others' code.

use std::{fs, process::Command, time::Instant};

use anyhow::{Context, ensure};
use serde_json::Value;
use tokenflow_engine::cli::{DTypeArg, DeviceArg};

use crate::{
    models::FAMILIES,
    report::Finding,
    running::{Request, Running, config},
    sections::{Settings, Teller},
};

const SCRIPT: &str = include_str!("reference.py");
const FAMILY: &str = "qwen2";
const MAX_TOKENS: usize = 12;

/// # Errors
/// When no folder for the model can be made.
pub fn run(settings: &Settings, teller: &Teller) -> anyhow::Result<()> {
    const NAME: &str = "greedy tokens of transformers";
    let importable = Command::new("python3").args(["-c", "import torch, transformers; print(transformers.__version__)"]).output();
    let version = match importable {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => {
            teller.tell(&Finding::skipped(NAME, "python3 has no torch or no transformers here"));
            return Ok(());
        }
    };
    teller.tell(&Finding::fact("transformers", version));
    let scratch = tempfile::tempdir()?;
    let device: DeviceArg = settings.device.parse().map_err(anyhow::Error::msg)?;
    teller.check(NAME, None, || {
        let family = FAMILIES.iter().find(|family| family.name == FAMILY).context("the family is there")?;
        family.write(scratch.path())?;
        let prompt: Vec<u32> = (0..40).map(|i| i * 37 % 251 + 3).collect();
        let script = scratch.path().join("reference.py");
        fs::write(&script, SCRIPT)?;
        let mut command = Command::new("python3");
        command.arg(&script).arg(scratch.path()).arg(serde_json::to_string(&prompt)?).arg(MAX_TOKENS.to_string());
        let began = Instant::now();
        let output = command.output()?;
        ensure!(
            output.status.success(),
            "transformers failed: {}",
            String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default()
        );
        let answer: Value = serde_json::from_slice(&output.stdout).context("transformers' answer")?;
        let expected: Vec<u32> = serde_json::from_value(answer["ids"].clone())?;
        eprintln!("   transformers took {:.1} s", began.elapsed().as_secs_f64());
        let mut config = config(scratch.path(), device, DTypeArg::Float32);
        (config.max_num_seqs, config.num_blocks, config.max_model_len) = (4, Some(64), Some(128));
        // What a start measures is a step of so many tokens, which takes an emulated card long.
        config.max_num_batched_tokens = 64;
        let said = Running::start(&config)?.ask(&[Request { prompt, max_tokens: MAX_TOKENS, logprobs: None }])?;
        let found: Vec<u32> = said[0].tokens.iter().map(|token| token.token).collect();
        ensure!(found == expected, "{found:?}, and transformers {expected:?}");
        Ok(())
    });
    Ok(())
}
