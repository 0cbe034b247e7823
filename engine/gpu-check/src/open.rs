//! The card that is asked for, with its kernels.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Instant,
};

use anyhow::Context;
use tokenflow_engine::backend::cuda;
use tokenflow_gpu::{
    DeviceChoice, Gpu, Kernels,
    kernels::{LoadOptions, Origin, Progress, Source, Sources, default_folder},
};

use crate::card::Card;

/// Names a folder of kernels that were compiled elsewhere, as for the engine.
pub(crate) const PREBUILT: &str = "TOKENFLOW_KERNELS";

/// # Errors
/// When there is none, with what was looked for and where.
pub fn gpu(device: &str) -> anyhow::Result<Gpu> {
    let choice: DeviceChoice = device.parse()?;
    Ok(Gpu::open(choice)?)
}

/// The card with all kernels, or those of a folder, of which those that are not kept on disk are compiled.
///
/// # Errors
/// When there is no card, the folder cannot be read, or a kernel does not compile.
pub fn card(device: &str, sources: Option<&Path>) -> anyhow::Result<Card> {
    let gpu = gpu(device)?;
    match sources {
        None => with_kernels(gpu, &cuda::all_sources(), default_folder()),
        Some(folder) => {
            let texts = texts(folder)?;
            let all = |extension: &str| -> Vec<Source<'_>> {
                let named = texts.iter().filter(|(name, _)| name.ends_with(extension));
                named.map(|(name, text)| Source { name, text }).collect()
            };
            with_kernels(gpu, &Sources { files: all(".cu"), headers: all(".cuh"), defines: Vec::new() }, default_folder())
        }
    }
}

/// Every file of a folder by its name.
fn texts(folder: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let mut texts = BTreeMap::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        texts.insert(name, fs::read_to_string(&path).with_context(|| path.display().to_string())?);
    }
    Ok(texts)
}

/// Kernels that were compiled elsewhere, as on machines that cannot.
pub(crate) fn prebuilt() -> Option<PathBuf> {
    std::env::var_os(PREBUILT).map(PathBuf::from)
}

/// As [`card`], on one that is open; compiled kernels are kept in the folder, where one is given.
///
/// # Errors
/// When a kernel does not compile.
pub fn with_kernels(gpu: Gpu, sources: &Sources<'_>, cache: Option<PathBuf>) -> anyhow::Result<Card> {
    let (began, compiled) = (Instant::now(), Mutex::new(0));
    let progress = |progress: Progress| {
        if progress.origin == Origin::Compiled {
            *compiled.lock().expect("nobody panics with it") += 1;
        }
    };
    let options = LoadOptions { progress: &progress, cache, prebuilt: prebuilt() };
    let kernels = Kernels::load(&gpu, sources, &options).context("kernels")?;
    eprintln!(
        "   kernels are ready after {:.1} s, {} files compiled",
        began.elapsed().as_secs_f64(),
        compiled.into_inner().unwrap_or_default()
    );
    Ok(Card::new(gpu, kernels))
}
