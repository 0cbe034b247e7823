//! What measures: each probe answers with one look at every connection it can see.

pub mod choose;
pub mod clock;
pub mod ebpf;
pub mod joined;
pub mod kernel;
pub mod sock_diag;

use std::{io, net::SocketAddr, time::Duration};

use tokenflow_hint_api::Source;
use tokenflow_score::Measurement;
use tokio::runtime::Handle;

use ebpf::Counters;

/// Which connection: the kernel's socket cookie, with the addresses for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `SO_COOKIE`.
    pub cookie: u64,
    pub local: SocketAddr,
    pub peer: SocketAddr,
}

/// One look at one connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    pub identity: Identity,
    pub measurement: Measurement,
    pub source: Source,
}

/// A way to look at every watched connection.
pub trait Probe: Send {
    /// What `GET /hint` calls it.
    fn source(&self) -> Source;

    /// Appends one look at each connection that exists now, taken at `at`. Blocks for the time of a few system calls.
    ///
    /// # Errors
    /// When the kernel refuses; what was appended by then is not complete.
    fn looks(&mut self, at: Duration, looks: &mut Vec<Look>) -> Result<(), ProbeError>;

    /// Appends one look at each of `which` that still exists, as far as this probe knows them; others may be left out. Costs by how many
    /// are asked for, where [`Self::looks`] costs by how many there are.
    ///
    /// # Errors
    /// As [`Self::looks`].
    fn looks_at(&mut self, at: Duration, which: &[Identity], looks: &mut Vec<Look>) -> Result<(), ProbeError>;

    /// Begins what needs a runtime.
    ///
    /// # Errors
    /// Where the runtime cannot poll.
    fn start(&mut self, _runtime: &Handle) -> io::Result<()> {
        Ok(())
    }

    /// What went wrong since the start, and what measuring costs in the kernel.
    fn counters(&self) -> ProbeCounters {
        ProbeCounters::default()
    }
}

/// What a probe could not do since the start, and how much its kernel program ran; zeros where it has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeCounters {
    pub kernel: Counters,
    /// Answers of socket diagnostics that did not fit the socket's buffer.
    pub netlink_overruns: u64,
    /// Dumps that had to be taken again because sockets came and went meanwhile.
    pub dumps_interrupted: u64,
    /// How often the kernel program ran; 0 unless `kernel.bpf_stats_enabled` is set.
    pub program_runs: u64,
    pub program_time: Duration,
}

/// Why a probe saw nothing.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("socket diagnostics: {call}: {error}")]
    SockDiag { call: &'static str, error: io::Error },
    #[error("socket diagnostics: the kernel's answer is malformed")]
    Malformed,
}
