//! What can go wrong on a device.

#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    #[error("tensor parts have {found} columns where {expected} were expected")]
    Columns { expected: usize, found: usize },
    #[error("{bytes} bytes for {what} could not be allocated")]
    OutOfMemory { what: &'static str, bytes: usize },
    #[error("{0}")]
    Device(String),
}
