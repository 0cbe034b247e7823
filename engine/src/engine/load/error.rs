//! Why a model cannot be served.

use super::plan::Shortage;
use crate::{
    backend::BackendError,
    model,
    tokenizer::TokenizerError,
    weights::{WeightsError, hub::HubError},
};

/// One sentence that names the file, the field or the flag.
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
    #[error("--device {device}: {reason}")]
    Device { device: String, reason: tokenflow_gpu::GpuError },
    #[error(transparent)]
    Memory(#[from] Shortage),
    #[error("--kv-cache-dtype {kv} does not go with --dtype {compute} on a GPU")]
    KvCacheDType { kv: &'static str, compute: &'static str },
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
    #[error("--chat-template: {path}: {reason}")]
    ChatTemplate { path: String, reason: std::io::Error },
    #[error("cannot start the engine's thread: {0}")]
    Thread(#[from] std::io::Error),
}
