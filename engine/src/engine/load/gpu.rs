//! A model on a GPU: weights, then the largest step, then a KV cache of what is left.

use tokenflow_gpu::{Gpu, GpuError, MemoryInfo, Vendor};

use super::{
    LoadError, Placed,
    cache::Demand,
    kernels,
    open::Opened,
    plan::{Activations, Measured, Shortage},
    profile::Profile,
    types::GpuTypes,
};
use crate::{
    backend::{
        Backend, BackendError,
        cuda::{CudaBackend, CudaConfig},
    },
    config::{DeviceSummary, EngineConfig, MemoryPlan},
    engine::memory,
    executor::LocalExecutor,
    model::{self, Model, ModelConfig},
    weights::{Loader, WeightsError},
};

/// Tokens at which products of a GPU are as fast as with any more: reading the weights takes as long as some 200 rows of work on the fastest
/// cards, and tiles of 64 rows must keep all multiprocessors busy.
const PREFILL_QUANTUM: usize = 1024;

/// Memory for the graph of one size of batch: some hundreds of launches with their arguments.
const GRAPH_BYTES: usize = 2 << 20;

pub(super) fn place(config: &EngineConfig, opened: &Opened, gpu: &Gpu) -> Result<Placed, LoadError> {
    let (model_config, checkpoint) = (&opened.config, &opened.checkpoint);
    let types = GpuTypes::new(config, checkpoint)?;
    let longest = opened.longest(config)?;
    let backend = kernels::open(
        gpu,
        CudaConfig {
            compute: types.compute,
            kv: types.kv,
            max_tokens: config.max_num_batched_tokens,
            max_seqs: config.max_num_seqs,
            max_logits_rows: logits_rows(config),
            max_model_len: longest,
            block_size: config.block_size,
            enforce_eager: config.enforce_eager,
            batch_invariant: config.batch_invariant,
            needs: Some(kernels::needs(model_config, checkpoint)),
            ..CudaConfig::default()
        },
    )?;
    let opened_memory = memory_of(gpu)?;
    backend.begin_loading(&config.model_name, checkpoint.num_bytes(), config.threads);
    let full = || Shortage::of_weights(checkpoint.num_bytes(), opened_memory.free, opened_memory.total);
    let mut model = model::load(model_config, Loader::new(checkpoint), &backend, 0..model_config.num_layers)
        .map_err(|error| if is_weights_out_of_memory(&error) { full().into() } else { LoadError::from(error) })?;
    backend.finish_loading()?;
    let loaded_memory = memory_of(gpu)?;

    let block_bytes = backend.kv_block_bytes(model.kv_layout(1, config.block_size));
    let demand = Demand { block_bytes, longest };
    // Rows that fill up a graph's batch write to blocks of their own.
    let spare = CudaBackend::spare_blocks(config.block_size) * block_bytes;
    let Activations { tokens, rows } =
        activations(config, &backend, &mut *model, block_bytes, loaded_memory, least_activations(model_config, types.element_bytes()))?;
    let measured = Measured {
        total: loaded_memory.total,
        others: used(opened_memory),
        weights: used(loaded_memory).saturating_sub(used(opened_memory)),
        activations: Activations { tokens, rows: rows + spare },
        graphs: if config.enforce_eager { 0 } else { backend.num_graphs() * GRAPH_BYTES },
    };
    let (bytes, memory_plan) = measured.plan(config, &demand, types.kv_element_bytes())?;
    let sized = demand.within(config, bytes, memory::available_bytes(), false)?;
    let kv_cache_bytes = sized.cache.num_blocks * block_bytes;
    let device = summary(gpu, MemoryPlan { kv_cache: kv_cache_bytes, ..memory_plan });
    let executor = LocalExecutor::new(backend, model, sized.cache, config.max_num_batched_tokens);
    let mut executor = executor.map_err(|error| match error {
        BackendError::Gpu(GpuError::OutOfMemory { place: DEVICE, bytes, free, .. }) => Shortage::of_cache(bytes, free).into(),
        other => LoadError::from(other),
    })?;
    Ok(Placed {
        cache: sized.cache,
        max_model_len: sized.max_model_len,
        block_copy_time: executor.block_copy_time(),
        prefill_quantum: PREFILL_QUANTUM,
        kv_cache_bytes,
        weights_bytes: measured.weights,
        dtype: types.name,
        kv_cache_dtype: types.kv.name(),
        device,
        executor: Box::new(executor),
    })
}

/// What errors call the card's own memory.
const DEVICE: &str = "device";

/// Most rows of logits of a step: each sequence's last, and one for each token that is guessed at.
fn logits_rows(config: &EngineConfig) -> usize {
    let drafts = config.scheduling.speculative.map_or(0, |speculative| speculative.num_speculative_tokens);
    config.max_num_seqs.saturating_mul(1 + drafts).min(config.max_num_batched_tokens)
}

/// Runs the largest step, and sees what it leaves allocated.
fn activations(
    config: &EngineConfig,
    backend: &CudaBackend,
    model: &mut dyn Model<CudaBackend>,
    block_bytes: usize,
    before: MemoryInfo,
    least: Activations,
) -> Result<Activations, LoadError> {
    let run = |model: &mut dyn Model<CudaBackend>, tokens| {
        let mut profile = Profile::new(backend, model, config, tokens)?;
        profile.run_layers(backend, model)?;
        let layers = used(backend.gpu().memory()?);
        profile.run_step(backend, model)?;
        let step = used(backend.gpu().memory()?);
        let cache = (profile.num_blocks() + CudaBackend::spare_blocks(config.block_size)) * block_bytes;
        let tokens = layers.saturating_sub(used(before) + cache);
        Ok(Activations { tokens, rows: step.saturating_sub(layers) })
    };
    match run(model, config.max_num_batched_tokens) {
        Ok(found) => Ok(found),
        Err(error) if is_out_of_memory(&error) => Err(Shortage::of_activations(config, before.free, least).into()),
        Err(error) => Err(error.into()),
    }
}

/// Bytes that each token, and each row of logits, needs at least: the residual stream, queries with keys and values or gate and up, and what
/// becomes of them; a row of logits.
fn least_activations(model: &ModelConfig, element_bytes: usize) -> Activations {
    let queries = model.num_heads * model.head_dim;
    let wide = (queries + 2 * model.num_kv_heads * model.head_dim).max(2 * model.intermediate_size);
    let narrow = queries.max(model.intermediate_size);
    let tokens = model.hidden_size * (size_of::<f32>() + 2 * element_bytes) + (wide + narrow) * element_bytes;
    Activations { tokens, rows: model.vocab_size * size_of::<f32>() }
}

fn summary(gpu: &Gpu, memory: MemoryPlan) -> DeviceSummary {
    let info = gpu.info();
    let kind = match info.vendor {
        Vendor::Nvidia => "cuda",
        Vendor::Amd => "rocm",
    };
    DeviceSummary::Gpu {
        id: format!("{kind}:{}", info.ordinal),
        name: info.name.clone(),
        arch: info.arch.clone(),
        num_multiprocessors: info.num_multiprocessors,
        memory,
    }
}

fn memory_of(gpu: &Gpu) -> Result<MemoryInfo, BackendError> {
    Ok(gpu.memory()?)
}

fn used(memory: MemoryInfo) -> usize {
    memory.total.saturating_sub(memory.free)
}

fn is_out_of_memory(error: &BackendError) -> bool {
    matches!(error, BackendError::Gpu(GpuError::OutOfMemory { place: DEVICE, .. }))
}

fn is_weights_out_of_memory(error: &model::LoadError) -> bool {
    matches!(error, model::LoadError::Weights(WeightsError::Backend { reason, .. }) if is_out_of_memory(reason))
}
