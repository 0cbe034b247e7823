//! The card that is asked for, with its kernels.

use std::{path::PathBuf, sync::Mutex, time::Instant};

use anyhow::Context;
use tokenflow_engine::backend::cuda;
use tokenflow_gpu::{
    DeviceChoice, Gpu, Kernels,
    kernels::{LoadOptions, Origin, Progress, default_folder},
};

use crate::card::Card;

/// # Errors
/// When there is none, with what was looked for and where.
pub fn gpu(device: &str) -> anyhow::Result<Gpu> {
    let choice: DeviceChoice = device.parse()?;
    Ok(Gpu::open(choice)?)
}

/// The card with all kernels, of which those that are not kept on disk are compiled.
///
/// # Errors
/// When there is no card, or a kernel does not compile.
pub fn card(device: &str) -> anyhow::Result<Card> {
    with_kernels(gpu(device)?, default_folder())
}

/// As [`card`], on one that is open; compiled kernels are kept in the folder, where one is given.
///
/// # Errors
/// When a kernel does not compile.
pub fn with_kernels(gpu: Gpu, cache: Option<PathBuf>) -> anyhow::Result<Card> {
    let (began, compiled) = (Instant::now(), Mutex::new(0));
    let progress = |progress: Progress| {
        if progress.origin == Origin::Compiled {
            *compiled.lock().expect("nobody panics with it") += 1;
        }
    };
    let options = LoadOptions { progress: &progress, cache, ..LoadOptions::default() };
    let kernels = Kernels::load(&gpu, &cuda::all_sources(), &options).context("kernels")?;
    eprintln!(
        "   kernels are ready after {:.1} s, {} files compiled",
        began.elapsed().as_secs_f64(),
        compiled.into_inner().unwrap_or_default()
    );
    Ok(Card::new(gpu, kernels))
}
