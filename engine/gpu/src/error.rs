/// What can go wrong on a GPU; one sentence that names what was looked for, or the call that failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GpuError {
    /// No library, no card, or one that is too old: what was looked for and where.
    #[error("{0}")]
    Unavailable(String),
    #[error("{bytes} bytes of {place} memory could not be allocated; {free} of {total} bytes are free")]
    OutOfMemory { place: &'static str, bytes: usize, free: usize, total: usize },
    #[error("{call} failed: {reason}")]
    Call { call: &'static str, reason: String },
    #[error("no file of kernels for {arch} has {name}")]
    NoKernel { name: String, arch: String },
    #[error("{file} does not compile for {arch}: {log}")]
    Compile { file: String, arch: String, log: String },
}
