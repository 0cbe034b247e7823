use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use tokenflow_hint_api::Subscriber;

use super::{EngineCore, memory};
use crate::{
    backend::{
        Backend, BackendError, DType,
        cpu::{ComputeType, CpuBackend, CpuConfig, KvType},
    },
    cli::{DTypeArg, KvCacheDTypeArg, RunnerArg},
    config::{EngineConfig, EngineInfo, GenerationSource, LoadSummary, ModelSource},
    executor::{CacheSize, LocalExecutor},
    health::Links,
    metrics::EngineMetrics,
    model::{self, GenerationDefaults, ModelConfig},
    scheduler::{Scheduler, SchedulerConfig},
    tokenizer::{Tokenizer, TokenizerError},
    weights::{
        Checkpoint, Gguf, Loader, WeightsError,
        hub::{self, HubError, HubModel, HubSettings},
    },
};

/// Most memory that the KV cache takes unless told otherwise, as vLLM's CPU backend.
const DEFAULT_KV_BYTES: usize = 4 << 30;

/// Rows at which a CPU's products are as fast as with any more.
const CPU_PREFILL_QUANTUM: usize = 256;

/// Most memory of the KV cache that the start waits for: a kernel may zero no more than half a gigabyte a second.
const POPULATED_KV_BYTES: usize = 512 << 20;

/// Files of the model inside the binary.
mod demo {
    pub(super) const CONFIG: &[u8] = include_bytes!("../../demo-model/config.json");
    pub(super) const GENERATION_CONFIG: &[u8] = include_bytes!("../../demo-model/generation_config.json");
    pub(super) const WEIGHTS: &[u8] = include_bytes!("../../demo-model/model.safetensors");
    pub(super) const TOKENIZER: &[u8] = include_bytes!("../../demo-model/tokenizer.json");
    pub(super) const TOKENIZER_CONFIG: &[u8] = include_bytes!("../../demo-model/tokenizer_config.json");
}

/// Why a model cannot be served; one sentence that names the file, the field or the flag.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Model(#[from] model::LoadError),
    #[error(transparent)]
    Config(#[from] model::ConfigError),
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(transparent)]
    Hub(#[from] HubError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error("--max-model-len {asked} is more than the model's max_position_embeddings, {limit}")]
    MaxModelLen { asked: usize, limit: usize },
    #[error("--kv-cache-memory-bytes {bytes} holds no block of the KV cache, which takes {block_bytes} bytes")]
    NoKvCache { bytes: usize, block_bytes: usize },
    #[error("--kv-offloading-size of {bytes} bytes holds no block of the KV cache, which takes {block_bytes} bytes")]
    NoOffloading { bytes: usize, block_bytes: usize },
    #[error("--kv-offloading-size of {bytes} bytes is more than the memory that is available, {available} bytes")]
    OffloadingMemory { bytes: usize, available: usize },
    #[error("--num-gpu-blocks-override {asked} is more than the KV cache can number: {most} blocks of {block_size} tokens")]
    TooManyBlocks { asked: usize, most: usize, block_size: usize },
    #[error(
        "--max-model-len {asked} is more than the KV cache of {capacity} tokens holds; lower it, or raise --kv-cache-memory-bytes or --num-gpu-blocks-override"
    )]
    KvCacheTooSmall { asked: usize, capacity: usize },
    #[error("--chat-template: {path}: {source}")]
    ChatTemplate { path: String, source: std::io::Error },
    #[error("cannot start the engine's thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// A model in memory with everything that is fixed before requests come.
pub struct LoadedModel {
    tokenizer: Tokenizer,
    /// The model's own sampling defaults (`generation_config.json`).
    generation: GenerationDefaults,
    info: EngineInfo,
    executor: LocalExecutor<CpuBackend>,
    scheduler: SchedulerConfig,
}

impl LoadedModel {
    /// Reads the model, places its weights on the device and allocates the KV cache.
    ///
    /// # Errors
    /// When a file is missing or malformed, or memory is short.
    pub fn load(config: &EngineConfig) -> Result<Self, LoadError> {
        let began = Instant::now();
        let (mut model_config, checkpoint, mut tokenizer) = match &config.model {
            ModelSource::Path(path) => open_path(path)?,
            ModelSource::Hub { model, cache } => open_path(&fetch(model, cache.as_ref())?)?,
            ModelSource::Demo => open_demo()?,
        };
        model_config.pooling = match config.runner {
            RunnerArg::Auto => model_config.pooling,
            RunnerArg::Generate => None,
            RunnerArg::Pooling => Some(model_config.pooling.unwrap_or_default()),
        };
        if let Some(template) = &config.chat_template {
            set_chat_template(&mut tokenizer, template)?;
        }
        let types = Types::new(config, checkpoint.is_float32());
        let backend = CpuBackend::new(types.cpu_config(config.threads))?;
        let model = model::load(&model_config, Loader::new(&checkpoint), &backend, 0..model_config.num_layers)?;

        let block_bytes = backend.kv_block_bytes(model.kv_layout(1, config.block_size));
        let longest = max_model_len(config, &model_config)?;
        let num_blocks = num_blocks(config, block_bytes, longest)?;
        let max_model_len = fitting_len(config, longest, num_blocks * config.block_size)?;
        let num_host_blocks = num_host_blocks(config, block_bytes)?;
        let cache = CacheSize { num_blocks, num_host_blocks, block_size: config.block_size };
        let kv_cache_bytes = num_blocks * block_bytes;
        let isa = backend.isa();
        let mut executor = LocalExecutor::new(backend, model, cache, config.max_num_batched_tokens)?;
        let scheduling = &config.scheduling;
        let scheduler = SchedulerConfig {
            max_num_batched_tokens: config.max_num_batched_tokens,
            max_num_seqs: config.max_num_seqs,
            block_size: config.block_size,
            num_blocks,
            num_host_blocks,
            block_copy_time: executor.block_copy_time(),
            // A vector leaves no token behind, so that a prompt may fill the context.
            max_model_len: max_model_len + usize::from(model_config.pooling.is_some()),
            pacing: config.pacing,
            pacing_law: config.pacing_law,
            max_waiting: scheduling.max_waiting,
            stream_rate_cap: config.max_stream_rate,
            caps: scheduling.caps,
            enable_prefix_caching: scheduling.enable_prefix_caching,
            policy: scheduling.policy,
            long_prefill_token_threshold: scheduling.long_prefill_token_threshold.unwrap_or(config.max_num_batched_tokens.div_ceil(4)),
            prefill_quantum: CPU_PREFILL_QUANTUM,
            speculative: scheduling.speculative,
        };
        let info = EngineInfo {
            max_model_len,
            vocab_size: model_config.vocab_size,
            block_size: config.block_size,
            num_blocks,
            max_num_batched_tokens: config.max_num_batched_tokens,
            max_num_seqs: config.max_num_seqs,
            eos_token_ids: model_config.eos_token_ids.clone(),
            max_logprobs: config.max_logprobs,
            limits: scheduling.limits,
            embedding_size: model_config.pooling.map(|_| model_config.hidden_size),
            loaded: LoadSummary {
                architecture: model_config.architecture.clone(),
                dtype: types.name.to_owned(),
                kv_cache_dtype: types.kv.name().to_owned(),
                weights_bytes: checkpoint.num_bytes(),
                kv_cache_bytes,
                enable_prefix_caching: scheduler.enable_prefix_caching,
                threads: config.threads,
                simd: format!("{isa:?}"),
                took: began.elapsed(),
            },
        };
        let generation = match &config.generation_config {
            GenerationSource::Model => model_config.generation,
            GenerationSource::Folder(folder) => GenerationDefaults::open(folder)?,
            GenerationSource::None => GenerationDefaults::default(),
        };
        Ok(Self { tokenizer, generation, info, executor, scheduler })
    }

    /// Starts the engine, which follows the hint server at the config's URL. Call it on a tokio runtime where there is one to follow.
    ///
    /// # Errors
    /// When the engine's thread cannot be started.
    pub fn start(self, config: &EngineConfig) -> Result<Served, LoadError> {
        let metrics = Arc::new(EngineMetrics::new(&config.model_name, &self.info));
        let links = Links::new(Subscriber::spawn(config.hint_url.clone()));
        let core = EngineCore::start(self.info, Scheduler::new(self.scheduler), Box::new(self.executor), links, metrics.clone())?;
        Ok(Served { core, metrics, tokenizer: Arc::new(self.tokenizer), generation: self.generation, seed: config.seed })
    }
}

/// What `--dtype` and `--kv-cache-dtype` come to.
struct Types {
    /// vLLM's name of the type of products.
    name: &'static str,
    compute: ComputeType,
    /// What unencoded weights are converted to.
    weights: Option<DType>,
    kv: KvType,
}

impl Types {
    fn new(config: &EngineConfig, is_float32: bool) -> Self {
        let dtype = match config.dtype {
            DTypeArg::Auto if is_float32 => DTypeArg::Float32,
            dtype => dtype,
        };
        let (name, compute, weights, kv) = match dtype {
            DTypeArg::Auto => ("bfloat16", ComputeType::BF16, None, KvType::BF16),
            DTypeArg::Bfloat16 => ("bfloat16", ComputeType::BF16, Some(DType::BF16), KvType::BF16),
            // Products of f16 weights are in f32.
            DTypeArg::Float16 => ("float16", ComputeType::F32, Some(DType::F16), KvType::F16),
            // Narrower weights are exact in f32 as they are.
            DTypeArg::Float32 => ("float32", ComputeType::F32, None, KvType::F32),
        };
        let kv = match config.kv_cache_dtype {
            KvCacheDTypeArg::Auto => kv,
            KvCacheDTypeArg::Bfloat16 => KvType::BF16,
            KvCacheDTypeArg::Float16 => KvType::F16,
            KvCacheDTypeArg::Float32 => KvType::F32,
            KvCacheDTypeArg::Fp8 => KvType::Fp8,
        };
        Self { name, compute, weights, kv }
    }

    fn cpu_config(&self, threads: usize) -> CpuConfig {
        CpuConfig {
            threads,
            compute: self.compute,
            kv_dtype: self.kv,
            weights: self.weights,
            isa: None,
            populated_kv_bytes: POPULATED_KV_BYTES.min(memory::available_bytes() / 4),
        }
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

/// Puts another chat template in the model's place: a file, or the template itself.
fn set_chat_template(tokenizer: &mut Tokenizer, template: &str) -> Result<(), LoadError> {
    let is_inline = template.contains("{{") || template.contains("{%");
    if is_inline {
        tokenizer.set_chat_template(template, "--chat-template")?;
    } else {
        let read = std::fs::read_to_string(template);
        let source = read.map_err(|source| LoadError::ChatTemplate { path: template.to_owned(), source })?;
        tokenizer.set_chat_template(&source, template)?;
    }
    Ok(())
}

fn fetch(model: &HubModel, cache: Option<&PathBuf>) -> Result<PathBuf, HubError> {
    let settings = HubSettings::from_environment();
    hub::fetch(model, &HubSettings { cache: cache.cloned().unwrap_or(settings.cache), ..settings })
}

/// A folder, or a GGUF file.
fn open_path(path: &Path) -> Result<(ModelConfig, Checkpoint, Tokenizer), LoadError> {
    let gguf = if path.is_file() { Some(path.to_owned()) } else { Gguf::in_folder(path)? };
    let Some(gguf) = gguf else {
        return Ok((ModelConfig::open(path)?, Checkpoint::open(path)?, Tokenizer::from_dir(path)?));
    };
    let Gguf { file, checkpoint, config, tokenizer, tokenizer_config } = Gguf::open(&gguf)?;
    let tokenizer = Tokenizer::from_gguf(&tokenizer, &tokenizer_config, &file)?;
    Ok((ModelConfig::from_gguf(&config, &file)?, checkpoint, tokenizer))
}

fn open_demo() -> Result<(ModelConfig, Checkpoint, Tokenizer), LoadError> {
    let config = ModelConfig::parse(demo::CONFIG, Some(demo::GENERATION_CONFIG))?;
    let checkpoint = Checkpoint::embedded("the demo model", demo::WEIGHTS)?;
    let tokenizer = Tokenizer::from_bytes(demo::TOKENIZER, Some(demo::TOKENIZER_CONFIG), None)?;
    Ok((config, checkpoint, tokenizer))
}

fn max_model_len(config: &EngineConfig, model: &ModelConfig) -> Result<usize, LoadError> {
    let limit = model.max_position_embeddings;
    match config.max_model_len {
        Some(asked) if asked > limit => Err(LoadError::MaxModelLen { asked, limit }),
        asked => Ok(asked.unwrap_or(limit)),
    }
}

/// As many blocks as sequences of the greatest length in all seats use, within the memory that the cache may take. Streams that sit most
/// steps out share seats, so that more would find use, but such long ones are rare.
fn num_blocks(config: &EngineConfig, block_bytes: usize, max_model_len: usize) -> Result<usize, LoadError> {
    let usable = config.max_num_seqs.saturating_mul(max_model_len.div_ceil(config.block_size));
    let bytes = config.kv_cache_memory_bytes.unwrap_or_else(|| DEFAULT_KV_BYTES.min(memory::available_bytes() / 2));
    // Slots are numbered in 32 bits.
    let most = u32::MAX as usize / config.block_size;
    match config.num_blocks.unwrap_or_else(|| usable.min(bytes / block_bytes).min(most)) {
        0 => Err(LoadError::NoKvCache { bytes, block_bytes }),
        asked if asked > most => Err(LoadError::TooManyBlocks { asked, most, block_size: config.block_size }),
        num_blocks => Ok(num_blocks),
    }
}

/// As many as the memory for offloaded blocks holds.
fn num_host_blocks(config: &EngineConfig, block_bytes: usize) -> Result<usize, LoadError> {
    let bytes = config.kv_offloading_bytes;
    let available = memory::available_bytes();
    if bytes > available {
        return Err(LoadError::OffloadingMemory { bytes, available });
    }
    match bytes / block_bytes {
        0 if bytes > 0 => Err(LoadError::NoOffloading { bytes, block_bytes }),
        // Block numbers are 32 bits wide.
        num_blocks => Ok(num_blocks.min(u32::MAX as usize)),
    }
}

/// The context length that the cache holds at least once. One that was asked for is never cut in silence.
fn fitting_len(config: &EngineConfig, longest: usize, capacity: usize) -> Result<usize, LoadError> {
    if longest <= capacity {
        return Ok(longest);
    }
    if config.max_model_len.is_some() {
        return Err(LoadError::KvCacheTooSmall { asked: longest, capacity });
    }
    tracing::warn!(model = longest, capacity, "the KV cache holds less than the model's context: requests are limited to what it holds");
    Ok(capacity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_memory_for_offloading_than_there_is_is_refused() {
        let config = EngineConfig { kv_offloading_bytes: usize::MAX / 2, ..EngineConfig::demo() };
        let message = num_host_blocks(&config, 1024).unwrap_err().to_string();
        assert!(message.starts_with("--kv-offloading-size of") && message.contains("is more than the memory"), "{message}");
        assert!(num_host_blocks(&EngineConfig { kv_offloading_bytes: 4096, ..config }, 1024).is_ok_and(|blocks| blocks == 4));
    }

    #[test]
    fn the_schedulers_defaults_are_what_an_engines_defaults_come_to() {
        let config = EngineConfig { num_blocks: Some(8), max_model_len: Some(64), threads: 1, ..EngineConfig::demo() };
        let made = LoadedModel::load(&config).unwrap().scheduler;
        // What a model and its device say.
        let SchedulerConfig { num_blocks, max_model_len, prefill_quantum, .. } = made;
        assert_eq!(made, SchedulerConfig { num_blocks, max_model_len, prefill_quantum, ..SchedulerConfig::default() });
    }
}
