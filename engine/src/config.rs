//! What the engine was asked to be: the command line given meaning, validated once.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use tokenflow_hint_api::HintUrl;

use crate::{
    cli::{DTypeArg, ServeArgs},
    scheduler::Pacing,
};

/// The hint server that is looked for when none is named.
const DEFAULT_HINT_URL: &str = "http://127.0.0.1:5000";

/// The patched vLLM's name for the same setting.
const HINT_URL_ALIAS: &str = "VLLM_HINT_SERVER_URL";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// A Hugging Face folder.
    Folder(PathBuf),
    /// The model inside the binary.
    Demo,
}

/// Settings of the engine itself; nothing of HTTP.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    pub model: ModelSource,
    pub dtype: DTypeArg,
    pub max_model_len: Option<usize>,
    pub max_num_seqs: usize,
    pub max_num_batched_tokens: usize,
    pub block_size: usize,
    pub num_blocks: Option<usize>,
    pub kv_cache_memory_bytes: Option<usize>,
    pub threads: usize,
    pub seed: u64,
    pub max_logprobs: u32,
    pub pacing: Pacing,
    pub max_stream_rate: Option<f64>,
    pub hint_url: HintUrl,
}

/// Settings of the HTTP server.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    pub listen: SocketAddr,
    pub served_model_names: Vec<String>,
    /// Where the model came from, for `/v1/models`.
    pub model_root: String,
    pub chat_template: Option<String>,
    pub use_generation_config: bool,
    pub shutdown_timeout: Duration,
}

/// Fixed facts about a running engine.
#[derive(Clone, Debug)]
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
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("--model: {path} is not a folder")]
    NotAFolder { path: PathBuf },
    #[error("--hint-url: {0}")]
    HintUrl(String),
    #[error("--generation-config: '{0}' is neither auto nor vllm")]
    GenerationConfig(String),
}

impl EngineConfig {
    /// # Errors
    /// When a flag's value has no meaning here; the message names the flag.
    pub fn new(args: &ServeArgs) -> Result<Self, ConfigError> {
        let model = match args.model_positional.as_ref().or(args.model.as_ref()) {
            None => ModelSource::Demo,
            Some(path) if path.is_dir() => ModelSource::Folder(path.clone()),
            Some(path) => return Err(ConfigError::NotAFolder { path: path.clone() }),
        };
        let hint_url = args.hint_url.clone().or_else(|| std::env::var(HINT_URL_ALIAS).ok()).unwrap_or_else(|| DEFAULT_HINT_URL.to_owned());
        Ok(Self {
            model,
            dtype: args.dtype,
            max_model_len: args.max_model_len,
            max_num_seqs: args.max_num_seqs,
            max_num_batched_tokens: args.max_num_batched_tokens,
            block_size: args.block_size,
            num_blocks: args.num_gpu_blocks_override,
            kv_cache_memory_bytes: args.kv_cache_memory_bytes,
            threads: args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into)),
            seed: args.seed,
            max_logprobs: args.max_logprobs,
            pacing: args.pacing.into(),
            max_stream_rate: args.max_stream_rate,
            hint_url: hint_url.parse().map_err(|e| ConfigError::HintUrl(format!("{e}")))?,
        })
    }
}

impl ServerConfig {
    /// # Errors
    /// When a flag's value has no meaning here; the message names the flag.
    pub fn new(args: &ServeArgs, model: &ModelSource) -> Result<Self, ConfigError> {
        let use_generation_config = match args.generation_config.as_str() {
            "auto" => true,
            "vllm" => false,
            other => return Err(ConfigError::GenerationConfig(other.to_owned())),
        };
        let served_model_names = match (args.served_model_name.as_slice(), model) {
            ([], ModelSource::Demo) => vec!["tokenflow-demo".to_owned()],
            ([], ModelSource::Folder(path)) => vec![path.to_string_lossy().into_owned()],
            (names, _) => names.to_vec(),
        };
        Ok(Self {
            listen: SocketAddr::new(args.host, args.port),
            model_root: match model {
                ModelSource::Folder(path) => path.display().to_string(),
                ModelSource::Demo => served_model_names[0].clone(),
            },
            served_model_names,
            chat_template: args.chat_template.clone(),
            use_generation_config,
            shutdown_timeout: args.shutdown_timeout,
        })
    }
}
