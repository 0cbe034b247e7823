//! Which probe measures: the best that works, with one line that says why not a better one.

use anyhow::Context;

use super::{Probe, sock_diag::SockDiag};
use crate::cli::{Cli, ProbeChoice};

pub struct Chosen {
    pub probe: Box<dyn Probe>,
}

/// Opens the probe that the command line asks for.
///
/// # Errors
/// When that probe, or with `auto` every probe, does not work here.
pub fn open(cli: &Cli) -> anyhow::Result<Chosen> {
    anyhow::ensure!(cli.probe != ProbeChoice::Ebpf, "--probe ebpf: the kernel program is not part of this build");
    let diagnostics = SockDiag::open(&cli.watch_port).context("no probe works")?;
    if cli.probe == ProbeChoice::Auto {
        tracing::info!("measuring with sock_diag: the kernel program is not part of this build");
    }
    Ok(Chosen { probe: Box::new(diagnostics) })
}
