//! What measures: each probe answers with one look at every connection it can see.

pub mod choose;
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

    /// Begins what needs a runtime.
    ///
    /// # Errors
    /// Where the runtime cannot poll.
    fn start(&mut self, _runtime: &Handle) -> io::Result<()> {
        Ok(())
    }

    /// What the kernel program could not do, since the start; zeros where there is none.
    fn counters(&self) -> Counters {
        Counters::default()
    }
}

/// Why a probe saw nothing.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("socket diagnostics: {call}: {error}")]
    SockDiag { call: &'static str, error: io::Error },
    #[error("socket diagnostics: the kernel's answer is malformed")]
    Malformed,
}
