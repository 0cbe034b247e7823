//! Kernels for the card at hand: which variants a model needs, and how far compiling them is.

use std::{
    collections::BTreeSet,
    io::IsTerminal,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Instant,
};

use indicatif::{ProgressBar, ProgressStyle};
use tokenflow_gpu::{
    Gpu,
    kernels::{LoadOptions, Origin, Progress},
};

use crate::{
    backend::{
        BackendError,
        cuda::{CudaBackend, CudaConfig, Needs},
    },
    model::ModelConfig,
    weights::Checkpoint,
};

/// Names a folder of kernels that were compiled elsewhere.
const PREBUILT: &str = "TOKENFLOW_KERNELS";

/// What a model needs of the kernels. More than it needs costs seconds at the first start.
pub(super) fn needs(model: &ModelConfig, checkpoint: &Checkpoint) -> Needs {
    let mut formats = BTreeSet::new();
    for (name, dtype, shape) in checkpoint.stored() {
        formats.extend(match dtype {
            "Q8_0" => Some("q8_0"),
            "Q4_K" => Some("q4_k"),
            "Q5_K" => Some("q5_k"),
            "Q6_K" => Some("q6_k"),
            // As 4-bit groups of 32.
            "Q4_0" => Some("int4"),
            "F8_E4M3" => Some("fp8"),
            _ if name.ends_with(".qweight") => Some("int4"),
            _ => None,
        });
        if let [_, .., columns] = shape
            && !columns.is_multiple_of(8)
        {
            formats.insert("odd");
        }
    }
    Needs { head_dim: model.head_dim, formats: formats.into_iter().collect(), experts: model.experts.is_some() }
}

/// The folder of kernels that were compiled elsewhere, where one is named.
pub(super) fn prebuilt() -> Option<PathBuf> {
    std::env::var_os(PREBUILT).map(PathBuf::from)
}

/// Opens the backend, and shows how far its kernels are where they are not kept from an earlier start.
pub(super) fn open(gpu: &Gpu, config: CudaConfig) -> Result<CudaBackend, BackendError> {
    let (began, compiled) = (Instant::now(), AtomicUsize::new(0));
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("compiling kernels for {msg} [{wide_bar}] {pos}/{len} files") {
        bar.set_style(style);
    }
    let arch = gpu.info().arch.clone();
    let progress = |progress: Progress<'_>| {
        if progress.origin != Origin::Compiled {
            return;
        }
        if compiled.fetch_add(1, Relaxed) == 0 {
            bar.set_length(progress.total as u64);
            bar.set_message(arch.clone());
            if bar.is_hidden() {
                tracing::info!(arch, files = progress.total, "compiling kernels, which later starts find on disk");
            }
        }
        bar.set_position(progress.done as u64);
    };
    let options = LoadOptions { prebuilt: prebuilt(), progress: &progress, ..LoadOptions::default() };
    let backend = CudaBackend::open(gpu.clone(), config, &options)?;
    bar.finish_and_clear();
    tracing::info!(arch, compiled = compiled.load(Relaxed), seconds = began.elapsed().as_secs_f64(), "kernels are ready");
    Ok(backend)
}

#[cfg(test)]
mod tests {
    use safetensors::{Dtype, tensor::TensorView};

    use super::*;

    #[test]
    fn variants_are_those_of_the_weights() {
        let made = |tensors: &[(&str, Dtype, &[usize])]| {
            let bytes: Vec<Vec<u8>> =
                tensors.iter().map(|(_, dtype, shape)| vec![0; shape.iter().product::<usize>() * dtype.bitsize() / 8]).collect();
            let views = tensors
                .iter()
                .zip(&bytes)
                .map(|((name, dtype, shape), bytes)| (*name, TensorView::new(*dtype, shape.to_vec(), bytes).unwrap()));
            Checkpoint::from_bytes("memory", safetensors::serialize(views, None).unwrap()).unwrap()
        };
        let config = ModelConfig::parse(include_bytes!("../../../demo-model/config.json"), None).unwrap();
        let formats = |tensors: &[(&str, Dtype, &[usize])]| needs(&config, &made(tensors)).formats;
        assert!(formats(&[("a.weight", Dtype::BF16, &[4, 64]), ("b.bias", Dtype::F32, &[7])]).is_empty());
        assert_eq!(formats(&[("a.weight", Dtype::F32, &[4, 63]), ("b.weight", Dtype::F8_E4M3, &[4, 64])]), ["fp8", "odd"]);
        assert_eq!(formats(&[("a.qweight", Dtype::I32, &[8, 64])]), ["int4"]);
    }
}
