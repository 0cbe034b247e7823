//! From a configuration to a running engine: files are opened, the model is placed on a device, which says how large a cache it can have, and
//! the scheduler is told. What differs between devices is one function each, which returns a [`Placed`].

mod cache;
mod cpu;
mod device;
mod error;
mod gpu;
mod kernels;
mod open;
mod plan;
mod profile;
mod types;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokenflow_hint_api::Subscriber;

use self::{device::Device, open::Opened};
use super::EngineCore;
use crate::{
    config::{DeviceSummary, EngineConfig, EngineInfo, GenerationSource, LoadSummary},
    executor::{CacheSize, Executor},
    health::Links,
    metrics::EngineMetrics,
    model::GenerationDefaults,
    scheduler::{MAX_STEPS_IN_FLIGHT, Scheduler, SchedulerConfig},
    tokenizer::Tokenizer,
};

pub use error::LoadError;

/// A model in memory with everything that is fixed before requests come.
pub struct LoadedModel {
    tokenizer: Tokenizer,
    /// The model's own sampling defaults (`generation_config.json`).
    generation: GenerationDefaults,
    info: EngineInfo,
    executor: Box<dyn Executor>,
    scheduler: SchedulerConfig,
}

/// A model on its device.
struct Placed {
    executor: Box<dyn Executor>,
    cache: CacheSize,
    /// Context length in tokens, which the cache holds at least once.
    max_model_len: usize,
    /// How long it takes to copy one block to the host or back.
    block_copy_time: Duration,
    /// Tokens of prompts in a step at which the device is as fast as with any more.
    prefill_quantum: usize,
    kv_cache_bytes: usize,
    weights_bytes: usize,
    /// vLLM's names of the types of products and of the cache.
    dtype: &'static str,
    kv_cache_dtype: &'static str,
    device: DeviceSummary,
}

impl LoadedModel {
    /// Reads the model, places its weights on the device and allocates the KV cache.
    ///
    /// # Errors
    /// When a file is missing or malformed, the device cannot be opened, or memory is short.
    pub fn load(config: &EngineConfig) -> Result<Self, LoadError> {
        let began = Instant::now();
        // First of all, since a model may have to be fetched.
        let device = Device::open(config.device)?;
        let opened = Opened::new(config)?;
        let placed = device.place(config, &opened)?;
        let Opened { config: model, tokenizer, .. } = opened;
        let scheduler = scheduler_config(config, &placed, model.pooling.is_some());
        let info = EngineInfo {
            max_model_len: placed.max_model_len,
            vocab_size: model.vocab_size,
            block_size: config.block_size,
            num_blocks: placed.cache.num_blocks,
            max_num_batched_tokens: config.max_num_batched_tokens,
            max_num_seqs: config.max_num_seqs,
            eos_token_ids: model.eos_token_ids,
            max_logprobs: config.max_logprobs,
            limits: config.scheduling.limits,
            embedding_size: model.pooling.map(|_| model.hidden_size),
            loaded: LoadSummary {
                architecture: model.architecture,
                dtype: placed.dtype.to_owned(),
                kv_cache_dtype: placed.kv_cache_dtype.to_owned(),
                weights_bytes: placed.weights_bytes,
                kv_cache_bytes: placed.kv_cache_bytes,
                enable_prefix_caching: scheduler.enable_prefix_caching,
                device: placed.device,
                took: began.elapsed(),
            },
        };
        let generation = match &config.generation_config {
            GenerationSource::Model => model.generation,
            GenerationSource::Folder(folder) => GenerationDefaults::open(folder)?,
            GenerationSource::None => GenerationDefaults::default(),
        };
        Ok(Self { tokenizer, generation, info, executor: placed.executor, scheduler })
    }

    /// Starts the engine, which follows the hint server at the config's URL. Call it on a tokio runtime where there is one to follow.
    ///
    /// # Errors
    /// When the engine's thread cannot be started.
    pub fn start(self, config: &EngineConfig) -> Result<Served, LoadError> {
        let metrics = Arc::new(EngineMetrics::new(&config.model_name, &self.info));
        let links = Links::new(Subscriber::spawn(config.hint_url.clone()));
        let core = EngineCore::start(self.info, Scheduler::new(self.scheduler), self.executor, links, metrics.clone())?;
        Ok(Served { core, metrics, tokenizer: Arc::new(self.tokenizer), generation: self.generation, seed: config.seed })
    }
}

fn scheduler_config(config: &EngineConfig, placed: &Placed, embeds: bool) -> SchedulerConfig {
    let scheduling = &config.scheduling;
    SchedulerConfig {
        max_num_batched_tokens: config.max_num_batched_tokens,
        max_num_seqs: config.max_num_seqs,
        block_size: config.block_size,
        num_blocks: placed.cache.num_blocks,
        max_steps_in_flight: if config.async_scheduling { placed.executor.max_in_flight().clamp(1, MAX_STEPS_IN_FLIGHT) } else { 1 },
        num_host_blocks: placed.cache.num_host_blocks,
        block_copy_time: placed.block_copy_time,
        // A vector leaves no token behind, so that a prompt may fill the context.
        max_model_len: placed.max_model_len + usize::from(embeds),
        pacing: config.pacing,
        pacing_law: config.pacing_law,
        max_waiting: scheduling.max_waiting,
        stream_rate_cap: config.max_stream_rate,
        caps: scheduling.caps,
        enable_prefix_caching: scheduling.enable_prefix_caching,
        policy: scheduling.policy,
        long_prefill_token_threshold: scheduling.long_prefill_token_threshold.unwrap_or(config.max_num_batched_tokens.div_ceil(4)),
        prefill_quantum: placed.prefill_quantum,
        speculative: scheduling.speculative,
    }
}

/// A running engine and what its users need beside it.
pub struct Served {
    pub core: EngineCore,
    pub metrics: Arc<EngineMetrics>,
    pub tokenizer: Arc<Tokenizer>,
    /// The model's own sampling defaults (`generation_config.json`), where they are to be used.
    pub generation: GenerationDefaults,
    /// Fixes the sequence of seeds for requests that bring none.
    pub seed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::DeviceArg;

    #[test]
    fn the_schedulers_defaults_are_what_an_engines_defaults_come_to() {
        let config =
            EngineConfig { device: DeviceArg::Cpu, num_blocks: Some(8), max_model_len: Some(64), threads: 1, ..EngineConfig::demo() };
        let made = LoadedModel::load(&config).unwrap().scheduler;
        // What a model and its device say.
        let SchedulerConfig { num_blocks, max_model_len, prefill_quantum, .. } = made;
        assert_eq!(made, SchedulerConfig { num_blocks, max_model_len, prefill_quantum, ..SchedulerConfig::default() });
    }
}
