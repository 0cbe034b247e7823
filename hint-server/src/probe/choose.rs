//! Which probe measures: the best that works, with one line that says why not a better one.

use anyhow::{Context, bail};
use tokenflow_ebpf_common::Config;

use super::{
    Probe,
    ebpf::{AttachError, EbpfProbe, EventRing, cgroup2_mount},
    joined::Joined,
    sock_diag::SockDiag,
};
use crate::cli::{Cli, ProbeChoice};

/// The probe that measures.
pub struct Chosen {
    pub probe: Box<dyn Probe>,
    /// What the kernel program tells at once.
    pub events: Option<EventRing>,
}

/// Opens the probe that the command line asks for. Starts no thread.
///
/// # Errors
/// When that probe, or with `auto` every probe, does not work here; and when `--cgroup` names no cgroup v2.
pub fn open(cli: &Cli) -> anyhow::Result<Chosen> {
    let diagnostics = SockDiag::open(&cli.watch_port).context("no probe works")?;
    if cli.probe != ProbeChoice::SockDiag {
        match attach(cli) {
            Ok(mut kernel) => {
                let events = kernel.take_events();
                return Ok(Chosen { probe: Box::new(Joined::new(kernel, diagnostics)), events });
            }
            Err(error @ (AttachError::NotCgroup2(_) | AttachError::Open { .. })) if cli.cgroup.is_some() => bail!("--cgroup: {error}"),
            Err(error) if cli.probe == ProbeChoice::Ebpf => bail!("--probe ebpf: {error}"),
            Err(error) => tracing::info!("measuring with sock_diag: {error}"),
        }
    }
    Ok(Chosen { probe: Box::new(diagnostics), events: None })
}

fn attach(cli: &Cli) -> Result<EbpfProbe, AttachError> {
    let cgroup = cli.cgroup.clone().map_or_else(cgroup2_mount, Ok)?;
    let config = Config::watching(&cli.watch_port).expect("the command line allows no more ports than the program");
    let kernel = EbpfProbe::attach(&cgroup, &config)?;
    tracing::info!("measuring with ebpf: the kernel program is attached to {}", cgroup.display());
    Ok(kernel)
}
