//! A model on the CPU.

use super::{LoadError, Placed, cache::Demand, open::Opened, types::CpuTypes};
use crate::{
    backend::{
        Backend,
        cpu::{CpuBackend, CpuConfig},
    },
    config::{DeviceSummary, EngineConfig},
    engine::memory,
    executor::LocalExecutor,
    model,
    weights::Loader,
};

/// Most memory that the KV cache takes unless told otherwise, as vLLM's CPU backend.
const DEFAULT_KV_BYTES: usize = 4 << 30;

/// Rows at which a CPU's products are as fast as with any more.
const PREFILL_QUANTUM: usize = 256;

/// Most memory of the KV cache that the start waits for: a kernel may zero no more than half a gigabyte a second.
const POPULATED_KV_BYTES: usize = 512 << 20;

pub(super) fn place(config: &EngineConfig, opened: &Opened) -> Result<Placed, LoadError> {
    if config.gpu_memory_utilization.is_some() {
        tracing::warn!("--gpu-memory-utilization has no effect: on a CPU --kv-cache-memory-bytes sizes the KV cache");
    }
    if config.enforce_eager {
        tracing::warn!("--enforce-eager has no effect: there are no graphs of kernels on a CPU");
    }
    if config.batch_invariant {
        tracing::info!("--batch-invariant changes nothing: on a CPU no batch changes a token's sums");
    }
    let (model_config, checkpoint) = (&opened.config, &opened.checkpoint);
    let types = CpuTypes::new(config, checkpoint.is_float32());
    let backend = CpuBackend::new(CpuConfig {
        threads: config.threads,
        compute: types.compute,
        kv_dtype: types.kv,
        weights: types.weights,
        isa: None,
        populated_kv_bytes: POPULATED_KV_BYTES.min(memory::available_bytes() / 4),
    })?;
    let model = model::load(model_config, Loader::new(checkpoint), &backend, 0..model_config.num_layers)?;

    let block_bytes = backend.kv_block_bytes(model.kv_layout(1, config.block_size));
    let available = memory::available_bytes();
    let bytes = config.kv_cache_memory_bytes.unwrap_or(DEFAULT_KV_BYTES.min(available / 2));
    let sized = Demand { block_bytes, longest: opened.longest(config)? }.within(config, bytes, available, true)?;
    let device = DeviceSummary::Cpu { threads: config.threads, simd: format!("{:?}", backend.isa()) };
    let mut executor = LocalExecutor::new(backend, model, sized.cache, config.max_num_batched_tokens)?;
    Ok(Placed {
        cache: sized.cache,
        max_model_len: sized.max_model_len,
        block_copy_time: executor.block_copy_time(),
        prefill_quantum: PREFILL_QUANTUM,
        kv_cache_bytes: sized.cache.num_blocks * block_bytes,
        weights_bytes: checkpoint.num_bytes(),
        dtype: types.name,
        kv_cache_dtype: types.kv.name(),
        device,
        executor: Box::new(executor),
    })
}
