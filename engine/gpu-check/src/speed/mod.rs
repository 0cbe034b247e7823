//! What a card does in a second, beside what it could: its memory and its tensor cores, each operation of a step alone, and whole steps of
//! an 8B model through the engine.

mod operations;
mod rates;
mod whole;

use std::time::Duration;

pub(crate) use whole::folder;

use anyhow::Context;
use tokenflow_engine::backend::{
    Backend,
    cuda::{CudaBackend, CudaConfig, Needs},
};
use tokenflow_gpu::{Gpu, kernels::LoadOptions};

use crate::{
    open,
    report::Finding,
    sections::{Settings, Teller},
    step::{Load, Rates, Shape, floors},
};

/// # Errors
/// When there is no card.
pub fn run(settings: &Settings, teller: &Teller) -> anyhow::Result<()> {
    let shape = shape(settings.tiny);
    let gpu = open::gpu(&settings.device)?;
    let rates = rates::measure(&gpu, settings.tiny, teller)?;
    for load in loads(settings.tiny) {
        teller.measure(&load.name(), Duration::from_secs(if settings.tiny { 1 } else { 15 }), || {
            Ok(vec![Finding::Table { markdown: operations_table(&gpu, &shape, &load, rates)? }])
        });
    }
    drop(gpu);
    whole::measure(settings, &shape, rates, teller)
}

/// The model whose speed is measured.
pub fn shape(tiny: bool) -> Shape {
    if tiny { Shape::TINY } else { Shape::LLAMA_8B }
}

fn loads(tiny: bool) -> Vec<Load> {
    if tiny {
        vec![Load::decode(2, 20), Load::prefill(24)]
    } else {
        vec![Load::decode(1, 1024), Load::decode(256, 1024), Load::prefill(2048)]
    }
}

fn operations_table(gpu: &Gpu, shape: &Shape, load: &Load, rates: Rates) -> anyhow::Result<String> {
    let backend = backend(gpu, shape, load).context("the backend")?;
    let seconds = operations::measure(&backend, shape, load)?;
    Ok(floors(shape, load, rates, |operation| seconds.iter().find(|(kind, _)| *kind == operation.kind).map(|(_, seconds)| *seconds)))
}

fn backend(gpu: &Gpu, shape: &Shape, load: &Load) -> anyhow::Result<impl Backend> {
    let needs = Needs { head_dim: shape.head_dim, formats: Vec::new(), experts: false };
    let config = CudaConfig {
        max_tokens: load.rows(),
        max_seqs: load.sequences,
        max_model_len: load.context,
        needs: Some(needs),
        ..CudaConfig::default()
    };
    Ok(CudaBackend::open(gpu.clone(), config, &LoadOptions { prebuilt: open::prebuilt(), ..LoadOptions::default() })?)
}
