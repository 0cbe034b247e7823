use std::{io, path::PathBuf};

use aya::{EbpfError, maps::MapError, programs::ProgramError, sys::SyscallError};
use caps::{CapSet, Capability};
use thiserror::Error;

/// Lines of the verifier's log that are worth showing: it ends with the instruction it refused and why.
const LOG_LINES: usize = 12;

/// Why there is no kernel program; each message says what would help.
#[derive(Debug, Error)]
pub enum AttachError {
    #[error("no cgroup v2 hierarchy is mounted: `mount -t cgroup2 none DIR` makes one")]
    NoCgroup2,
    #[error("{0} is not a cgroup v2 folder: `findmnt -t cgroup2` shows where they are")]
    NotCgroup2(PathBuf),
    #[error("open {path}: {error}")]
    Open { path: PathBuf, error: io::Error },
    #[error(
        "{call}: {error}: the kernel program needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (`setcap cap_bpf,cap_net_admin,cap_perfmon+ep` on the \
         binary, or root)"
    )]
    NotPermitted { call: &'static str, error: io::Error },
    #[error("{call}: {error}: the kernel program needs Linux 5.8 or newer with CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF")]
    Unsupported { call: &'static str, error: io::Error },
    #[error("BPF_PROG_LOAD: {error}: the verifier of this kernel refused the program:\n{log}")]
    Refused { error: io::Error, log: String },
    #[error("{call}: {error}")]
    Call { call: &'static str, error: io::Error },
    #[error("{action}: {error}")]
    Other { action: &'static str, error: Box<dyn std::error::Error + Send + Sync> },
    #[error("the embedded object has no `{0}`: rebuild it with `cargo xtask build-ebpf`")]
    Missing(&'static str),
}

/// Why the maps of a running program cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    #[error("BPF_MAP_LOOKUP_BATCH: {0}")]
    Batch(io::Error),
    #[error(transparent)]
    Map(#[from] MapError),
    #[error(transparent)]
    Program(#[from] ProgramError),
}

impl AttachError {
    /// From making the maps.
    pub(super) fn load(error: EbpfError) -> Self {
        match error {
            EbpfError::MapError(MapError::CreateError { io_error, .. }) => Self::from_call("BPF_MAP_CREATE", io_error),
            EbpfError::MapError(MapError::SyscallError(SyscallError { call, io_error })) => Self::from_call(call, io_error),
            error => Self::Other { action: "load the kernel program's object", error: error.into() },
        }
    }

    /// From the verifier.
    pub(super) fn verify(error: ProgramError) -> Self {
        match error {
            ProgramError::LoadError { io_error, verifier_log } => {
                // Without it the verifier is stricter with pointers than the program is.
                let strict = !caps::has_cap(None, CapSet::Effective, Capability::CAP_PERFMON).unwrap_or(true);
                if strict && io_error.raw_os_error() == Some(libc::EACCES) {
                    return Self::NotPermitted { call: "BPF_PROG_LOAD", error: io_error };
                }
                let log = tail(&verifier_log.to_string(), LOG_LINES);
                match Self::from_call("BPF_PROG_LOAD", io_error) {
                    Self::Call { error, .. } => Self::Refused { error, log },
                    understood => understood,
                }
            }
            error => Self::attach(error),
        }
    }

    /// From attaching to the cgroup.
    pub(super) fn attach(error: ProgramError) -> Self {
        match error {
            ProgramError::SyscallError(SyscallError { call, io_error }) => Self::from_call(call, io_error),
            error => Self::Other { action: "attach the kernel program", error: error.into() },
        }
    }

    fn from_call(call: &'static str, error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM) => Self::NotPermitted { call, error },
            Some(libc::ENOSYS | libc::EOPNOTSUPP) => Self::Unsupported { call, error },
            _ => Self::Call { call, error },
        }
    }
}

impl From<ProgramError> for AttachError {
    fn from(error: ProgramError) -> Self {
        Self::Other { action: "open the kernel program", error: error.into() }
    }
}

impl From<MapError> for AttachError {
    fn from(error: MapError) -> Self {
        Self::Other { action: "open the kernel program's maps", error: error.into() }
    }
}

impl From<aya_log::Error> for AttachError {
    fn from(error: aya_log::Error) -> Self {
        Self::Other { action: "open the kernel program's log", error: error.into() }
    }
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_would_help() {
        let refused = |errno| AttachError::from_call("BPF_MAP_CREATE", io::Error::from_raw_os_error(errno)).to_string();
        assert!(refused(libc::EPERM).contains("CAP_BPF"));
        assert!(refused(libc::ENOSYS).contains("Linux 5.8"));
        assert!(refused(libc::ENOMEM).starts_with("BPF_MAP_CREATE: "));
    }

    #[test]
    fn the_verifier_log_is_cut_to_its_end() {
        assert_eq!(tail("a\n\nb\n  \nc\n", 2), "b\nc");
        assert_eq!(tail("a", 2), "a");
        assert_eq!(tail("", 2), "");
    }
}
