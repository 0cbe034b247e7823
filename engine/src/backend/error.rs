//! What can go wrong on a device.

#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    #[error("tensor parts have {found} columns where {expected} were expected")]
    Columns { expected: usize, found: usize },
    /// Of part `part` of a matrix.
    #[error("{reason}")]
    Weight { part: usize, reason: String },
    #[error("{bytes} bytes for {what} could not be allocated")]
    OutOfMemory { what: &'static str, bytes: usize },
    #[error("{0}")]
    Device(String),
    #[error(transparent)]
    Gpu(#[from] tokenflow_gpu::GpuError),
}
