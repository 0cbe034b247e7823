//! What the engine was asked to be: the command line given meaning, validated once.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use tokenflow_hint_api::HintUrl;

use crate::{
    api::{AccessConfig, AccessError, ChatConfig, TrustedProxies},
    cli::{DTypeArg, DeviceArg, EngineArgs, KvCacheDTypeArg, RunnerArg, SchedulingArgs, ServeArgs},
    scheduler::{Caps, NgramConfig, Pacing, PacingLaw, SchedulingPolicy},
    weights::hub::{HubModel, NotAName},
};

/// The hint server that is looked for when none is named.
const DEFAULT_HINT_URL: &str = "http://127.0.0.1:5000";

/// The patched vLLM's name for the same setting.
const HINT_URL_ALIAS: &str = "VLLM_HINT_SERVER_URL";

/// What the model inside the binary is called.
const DEMO_MODEL_NAME: &str = "tokenflow-demo";

/// Share of a GPU's memory that may be in use unless told otherwise.
pub const DEFAULT_MEMORY_UTILIZATION: f64 = 0.9;

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// A Hugging Face folder, a GGUF file, or a folder with one.
    Path(PathBuf),
    /// A repository of the Hugging Face hub; `cache` takes the place of the cache that the environment names.
    Hub { model: HubModel, cache: Option<PathBuf> },
    /// The model inside the binary.
    Demo,
}

/// Where sampling defaults come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GenerationSource {
    /// The model's own `generation_config.json`.
    Model,
    /// The one in this folder.
    Folder(PathBuf),
    /// None: OpenAI's defaults.
    None,
}

/// Settings of the engine itself; nothing of HTTP. [`EngineConfig::new`] and [`EngineConfig::demo`] have the defaults of `serve`,
/// except that no hint server is followed.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineConfig {
    pub model: ModelSource,
    /// What metrics call the model.
    pub model_name: String,
    /// Type of unencoded weights, products and the KV cache.
    pub dtype: DTypeArg,
    pub kv_cache_dtype: KvCacheDTypeArg,
    /// Whether the model generates or embeds.
    pub runner: RunnerArg,
    /// Where the model runs.
    pub device: DeviceArg,
    /// Share of a GPU's memory that may be in use once the model is loaded, 0 < share <= 1; `None` for [`DEFAULT_MEMORY_UTILIZATION`].
    pub gpu_memory_utilization: Option<f64>,
    /// Whether no graphs of a GPU's kernels are recorded.
    pub enforce_eager: bool,
    /// Whether the next step is prepared while one runs, on devices that can.
    pub async_scheduling: bool,
    /// On a GPU, multiply by kernels that do the same sums whatever else is in the batch.
    pub batch_invariant: bool,
    /// Context length in tokens; `None` for the model's.
    pub max_model_len: Option<usize>,
    /// Most sequences in one step.
    pub max_num_seqs: usize,
    /// Most tokens of all requests in one forward pass.
    pub max_num_batched_tokens: usize,
    /// Tokens in a KV block.
    pub block_size: usize,
    /// Number of KV blocks; `None` derives it from memory.
    pub num_blocks: Option<usize>,
    /// Bytes for the KV cache; `None` for what a GPU has left, and on a CPU for 4 GiB, or half of the free memory where that is less.
    pub kv_cache_memory_bytes: Option<usize>,
    /// Bytes of host memory for KV blocks that have to give way; 0 for none, so that they are computed again.
    pub kv_offloading_bytes: usize,
    /// Worker threads of the CPU backend, and of loading onto a GPU.
    pub threads: usize,
    /// Fixes the sequence of seeds for requests that bring none.
    pub seed: u64,
    /// Most log-probabilities that a request may ask for at each position.
    pub max_logprobs: u32,
    /// What the health of the clients' links does to the step budget.
    pub pacing: Pacing,
    /// How a stream is paced by its own link.
    pub pacing_law: PacingLaw,
    /// Most tokens per second of any one stream.
    pub max_stream_rate: Option<f64>,
    /// Who runs when, and how long anybody waits.
    pub scheduling: SchedulingConfig,
    /// The hint server to follow, which takes a tokio runtime.
    pub hint_url: HintUrl,
    /// Instead of the model's: a file, or the template itself.
    pub chat_template: Option<String>,
    /// Where sampling defaults come from.
    pub generation_config: GenerationSource,
}

/// Who runs when, and how long anybody waits.
#[derive(Clone, Debug, PartialEq)]
pub struct SchedulingConfig {
    pub enable_prefix_caching: bool,
    pub policy: SchedulingPolicy,
    /// Most tokens that a long prompt gets of a step while others wait for theirs; `None` for a quarter of the step's, 0 for no bound.
    pub long_prefill_token_threshold: Option<usize>,
    /// Guesses at tokens to come.
    pub speculative: Option<NgramConfig>,
    /// Most requests that may wait.
    pub max_waiting: Option<usize>,
    /// What one tenant, or one connection, may take.
    pub caps: Caps,
    pub limits: TimeLimits,
}

impl Default for SchedulingConfig {
    fn default() -> Self {
        Self {
            enable_prefix_caching: true,
            policy: SchedulingPolicy::Fcfs,
            long_prefill_token_threshold: None,
            speculative: None,
            max_waiting: None,
            caps: Caps::default(),
            limits: TimeLimits::default(),
        }
    }
}

impl From<&SchedulingArgs> for SchedulingConfig {
    fn from(args: &SchedulingArgs) -> Self {
        Self {
            enable_prefix_caching: args.enable_prefix_caching,
            policy: args.scheduling_policy.into(),
            long_prefill_token_threshold: args.long_prefill_token_threshold,
            speculative: args.speculative_config,
            max_waiting: args.max_waiting,
            caps: args.caps(),
            limits: TimeLimits { max_queue_time: args.max_queue_time, request_timeout: args.request_timeout },
        }
    }
}

/// How long requests may take; `None` sets no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeLimits {
    /// Before they start.
    pub max_queue_time: Option<Duration>,
    /// In all.
    pub request_timeout: Option<Duration>,
}

/// Settings of the HTTP server.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    pub listen: SocketAddr,
    pub served_model_names: Vec<String>,
    /// Where the model came from, for `/v1/models`.
    pub model_root: String,
    pub shutdown_timeout: Duration,
    /// Tokens in a chunk of a stream.
    pub stream_interval: usize,
    /// Whether tokens share events where a stream's link is behind.
    pub coalesce_events: bool,
    pub chat: ChatConfig,
    pub api_keys: Vec<String>,
    /// Whether `/` is a page to chat with.
    pub chat_page: bool,
    pub trusted_proxies: TrustedProxies,
    pub access: AccessConfig,
    /// Files with the certificate chain and its key, for HTTPS.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// Fixed facts about a running engine.
#[derive(Clone, Debug, Default)]
pub struct EngineInfo {
    /// Context length in tokens.
    pub max_model_len: usize,
    pub vocab_size: usize,
    pub block_size: usize,
    pub num_blocks: usize,
    pub max_num_batched_tokens: usize,
    pub max_num_seqs: usize,
    /// The model's end-of-sequence tokens.
    pub eos_token_ids: Vec<u32>,
    /// Largest `logprobs` a request may ask for.
    pub max_logprobs: u32,
    pub limits: TimeLimits,
    /// Dimensions of a vector, where the model embeds instead of generating.
    pub embedding_size: Option<usize>,
    pub loaded: LoadSummary,
}

/// What was loaded onto what; for people and for labels.
#[derive(Clone, Debug, Default)]
pub struct LoadSummary {
    /// As `config.json` names it.
    pub architecture: String,
    /// Of products and activations.
    pub dtype: String,
    pub kv_cache_dtype: String,
    pub weights_bytes: usize,
    pub kv_cache_bytes: usize,
    pub enable_prefix_caching: bool,
    pub device: DeviceSummary,
    pub took: Duration,
}

/// What the model runs on.
#[derive(Clone, Debug, PartialEq)]
pub enum DeviceSummary {
    Cpu {
        threads: usize,
        /// Instruction set of the kernels.
        simd: String,
    },
    Gpu {
        /// "cuda:0"
        id: String,
        /// "NVIDIA H200"
        name: String,
        /// What kernels were compiled for: "sm_90a".
        arch: String,
        num_multiprocessors: usize,
        memory: MemoryPlan,
    },
}

impl Default for DeviceSummary {
    fn default() -> Self {
        Self::Cpu { threads: 0, simd: String::new() }
    }
}

impl fmt::Display for DeviceSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu { threads, simd } => write!(f, "CPU, {threads} threads, {simd}"),
            Self::Gpu { id, name, arch, num_multiprocessors, .. } => {
                write!(f, "{name} ({id}), {arch}, {num_multiprocessors} multiprocessors")
            }
        }
    }
}

/// Who has a GPU's memory, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MemoryPlan {
    pub total: usize,
    /// Share of it that may be in use.
    pub utilization: f64,
    /// In use before: by other processes, the driver and kernels.
    pub others: usize,
    pub weights: usize,
    /// Most that a step needs beside them, as a profiling run of the largest step found.
    pub activations: usize,
    /// Kept for graphs of kernels.
    pub graphs: usize,
    pub kv_cache: usize,
}

impl EngineInfo {
    /// Tokens that the KV cache holds.
    pub fn kv_cache_tokens(&self) -> usize {
        self.num_blocks * self.block_size
    }

    /// Most tokens of a prompt: an answer needs room in the context, a vector does not.
    pub fn longest_prompt(&self) -> usize {
        self.max_model_len.saturating_sub(usize::from(self.embedding_size.is_none()))
    }

    /// How many requests of the full context length the KV cache holds at a time.
    pub fn max_concurrency(&self) -> f64 {
        self.kv_cache_tokens() as f64 / self.max_model_len.max(1) as f64
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("--model: there is no {path}, and it {reason} on the Hugging Face hub")]
    NoModel { path: PathBuf, reason: NotAName },
    #[error("--hint-url: {0}")]
    HintUrl(String),
    /// A flag of vLLM's that asks for what this engine does not have.
    #[error("{0}")]
    Unsupported(String),
    #[error("--generation-config: '{0}' is neither auto nor vllm nor a folder")]
    GenerationConfig(String),
}

impl Default for EngineConfig {
    /// The demo model, which is inside the binary.
    fn default() -> Self {
        Self {
            model: ModelSource::Demo,
            model_name: DEMO_MODEL_NAME.to_owned(),
            dtype: DTypeArg::Auto,
            kv_cache_dtype: KvCacheDTypeArg::Auto,
            runner: RunnerArg::Auto,
            device: DeviceArg::Auto,
            gpu_memory_utilization: None,
            enforce_eager: false,
            async_scheduling: true,
            batch_invariant: false,
            max_model_len: None,
            max_num_seqs: 256,
            max_num_batched_tokens: 2048,
            block_size: 16,
            num_blocks: None,
            kv_cache_memory_bytes: None,
            kv_offloading_bytes: 0,
            threads: available_threads(),
            seed: 0,
            max_logprobs: 20,
            pacing: Pacing::PerConnection,
            pacing_law: PacingLaw::default(),
            max_stream_rate: None,
            scheduling: SchedulingConfig::default(),
            hint_url: HintUrl::None,
            chat_template: None,
            generation_config: GenerationSource::Model,
        }
    }
}

impl EngineConfig {
    /// For the model in a Hugging Face folder or a GGUF file, or where there is none such, for that of this name on the hub.
    pub fn new(model: impl Into<PathBuf>) -> Self {
        let path = model.into();
        let model_name = path.display().to_string();
        let model = match model_name.parse() {
            Ok(model) if !path.exists() => ModelSource::Hub { model, cache: None },
            _ => ModelSource::Path(path),
        };
        Self { model_name, model, ..Self::default() }
    }

    /// For the model inside the binary.
    pub fn demo() -> Self {
        Self::default()
    }

    /// # Errors
    /// When a flag's value has no meaning here; the message names the flag.
    pub fn from_args(args: &EngineArgs) -> Result<Self, ConfigError> {
        args.compatibility.check().map_err(ConfigError::Unsupported)?.iter().for_each(|line| tracing::warn!("{line}"));
        let model = match args.model_positional.as_ref().or(args.model.as_ref()) {
            None => ModelSource::Demo,
            Some(path) if path.exists() => ModelSource::Path(path.clone()),
            Some(path) => match path.to_string_lossy().parse::<HubModel>() {
                Ok(model) => {
                    let model = model.with_revision(args.revision.as_deref());
                    ModelSource::Hub { model, cache: args.download_dir.clone() }
                }
                Err(reason) => return Err(ConfigError::NoModel { path: path.clone(), reason }),
            },
        };
        let hint_url = args.hint_url.clone().or_else(|| std::env::var(HINT_URL_ALIAS).ok()).unwrap_or_else(|| DEFAULT_HINT_URL.to_owned());
        Ok(Self {
            model_name: served_model_names(args, &model).swap_remove(0),
            model,
            dtype: args.dtype,
            kv_cache_dtype: args.kv_cache_dtype,
            runner: args.runner,
            device: args.devices.device,
            gpu_memory_utilization: args.devices.gpu_memory_utilization,
            enforce_eager: args.devices.enforce_eager,
            async_scheduling: args.devices.async_scheduling,
            batch_invariant: args.devices.batch_invariant,
            max_model_len: args.max_model_len,
            max_num_seqs: args.max_num_seqs,
            max_num_batched_tokens: args.max_num_batched_tokens,
            block_size: args.block_size,
            num_blocks: args.num_gpu_blocks_override,
            kv_cache_memory_bytes: args.kv_cache_memory_bytes,
            kv_offloading_bytes: (args.kv_offloading_size * f64::from(1 << 30)) as usize,
            threads: args.threads.unwrap_or_else(available_threads),
            seed: args.seed,
            max_logprobs: args.max_logprobs,
            pacing: args.pacing.into(),
            pacing_law: args.pacing_law,
            max_stream_rate: args.max_stream_rate,
            scheduling: SchedulingConfig::from(&args.scheduling),
            hint_url: hint_url.parse().map_err(|e| ConfigError::HintUrl(format!("{e}")))?,
            chat_template: args.chat_template.clone(),
            generation_config: match args.generation_config.as_str() {
                "auto" => GenerationSource::Model,
                "vllm" => GenerationSource::None,
                folder if Path::new(folder).is_dir() => GenerationSource::Folder(folder.into()),
                other => return Err(ConfigError::GenerationConfig(other.to_owned())),
            },
        })
    }
}

impl ServerConfig {
    /// # Errors
    /// When a flag's value has no meaning here; the message names the flag.
    pub fn new(args: &ServeArgs, model: &ModelSource) -> Result<Self, AccessError> {
        let served_model_names = served_model_names(&args.engine, model);
        let api = &args.api;
        Ok(Self {
            listen: SocketAddr::new(args.host, args.port),
            model_root: match model {
                ModelSource::Path(path) => path.display().to_string(),
                ModelSource::Hub { model, .. } => model.to_string(),
                ModelSource::Demo => served_model_names[0].clone(),
            },
            served_model_names,
            shutdown_timeout: args.shutdown_timeout,
            stream_interval: args.stream_interval,
            coalesce_events: !args.no_coalesce_events,
            chat: ChatConfig {
                tool_call_parser: api.tool_call_parser.filter(|_| api.enable_auto_tool_choice),
                reasoning_parser: api.reasoning_parser,
                trust_request_chat_template: api.trust_request_chat_template,
            },
            // A variable that is set to nothing asks for nothing.
            api_keys: api.api_key.iter().filter(|key| !key.is_empty()).cloned().collect(),
            chat_page: !api.no_chat_page,
            trusted_proxies: TrustedProxies::new(api.trusted_proxy.clone(), api.proxy_header),
            access: AccessConfig::new(
                api.root_path.as_deref(),
                &api.allowed_origins.0,
                &api.allowed_methods.0,
                &api.allowed_headers.0,
                api.allow_credentials,
            )?,
            tls: api.ssl_certfile.clone().zip(api.ssl_keyfile.clone()),
        })
    }
}

/// At least one: what requests may call the model.
fn served_model_names(args: &EngineArgs, model: &ModelSource) -> Vec<String> {
    match (args.served_model_name.as_slice(), model) {
        ([], ModelSource::Demo) => vec![DEMO_MODEL_NAME.to_owned()],
        ([], ModelSource::Path(path)) => vec![path.to_string_lossy().into_owned()],
        ([], ModelSource::Hub { model, .. }) => vec![model.to_string()],
        (names, _) => names.to_vec(),
    }
}

fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn a_library_gets_what_serve_gets_without_flags() {
        let Command::Serve(args) = Cli::try_parse_from(["tokenflow-engine", "serve"]).unwrap().command else { panic!("not serve") };
        let served = EngineConfig::from_args(&args.engine).unwrap();
        assert_ne!(served.hint_url, HintUrl::None);
        assert_eq!(EngineConfig { hint_url: HintUrl::None, ..served }, EngineConfig::demo());
    }
}
