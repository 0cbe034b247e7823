use std::path::PathBuf;

use crate::backend::BackendError;

#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    #[error("{} cannot be read: {reason}", path.display())]
    Io { path: PathBuf, reason: String },
    #[error("{} has neither model.safetensors nor model.safetensors.index.json", folder.display())]
    NoWeights { folder: PathBuf },
    #[error("{file} is not a usable safetensors file: {reason}")]
    File { file: String, reason: String },
    #[error("{file} is not a usable index of shards: {reason}")]
    Index { file: String, reason: String },
    #[error("{file} {reason}")]
    Gguf { file: String, reason: String },
    #[error("{file}: key \"{key}\" {reason}")]
    Metadata { file: String, key: String, reason: String },
    #[error("{file}: field \"{field}\" {reason}")]
    Declaration { file: String, field: String, reason: String },
    #[error("{file}: tensor \"{tensor}\" {reason}")]
    Tensor { file: String, tensor: String, reason: String },
    #[error("the checkpoint {checkpoint} has no tensor \"{tensor}\"")]
    Missing { checkpoint: String, tensor: String },
    #[error("the backend cannot hold tensor \"{tensor}\": {reason}")]
    Backend { tensor: String, reason: BackendError },
}
