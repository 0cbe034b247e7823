//! Which probe measures: the best that works, with one line that says why not a better one.
//!
//! Decided in two steps, since attaching the kernel program needs privilege and reading its map, without it, does not work everywhere.

use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use tokenflow_ebpf_common::Config;

use super::{
    Probe,
    ebpf::{AttachError, EbpfProbe, EventRing, cgroup2_mount, ensure_cgroup2},
    joined::{Joined, KernelStats},
    sock_diag::SockDiag,
};
use crate::cli::{ProbeArgs, ProbeChoice};

/// What was opened with privilege.
pub struct Opened {
    /// The kernel program and the cgroup that it is attached to.
    kernel: Option<(EbpfProbe, PathBuf)>,
    diagnostics: SockDiag,
    /// Whether only the kernel program will do.
    kernel_required: bool,
}

/// The probe that measures.
pub struct Chosen {
    pub probe: Box<dyn Probe>,
    /// What the kernel program tells at once.
    pub events: Option<EventRing>,
}

/// Opens what the command line asks for. Starts no thread.
///
/// # Errors
/// When that probe, or with `auto` every probe, does not work here; and when `--cgroup` names no cgroup v2.
pub fn open(cli: &ProbeArgs) -> anyhow::Result<Opened> {
    if let Some(cgroup) = &cli.cgroup {
        ensure_cgroup2(cgroup).map_err(|error| anyhow!("--cgroup: {error}"))?;
    }
    let diagnostics = SockDiag::open(&cli.watch_port).context("no probe works without netlink's socket diagnostics")?;
    let kernel_required = cli.probe == ProbeChoice::Ebpf;
    let kernel = match cli.probe {
        ProbeChoice::SockDiag => None,
        ProbeChoice::Ebpf | ProbeChoice::Auto => match attach(cli) {
            Ok(attached) => Some(attached),
            Err(error) if kernel_required => bail!("--probe ebpf: {error}"),
            Err(error) => {
                tracing::info!("measuring with sock_diag: {error}");
                None
            }
        },
    };
    Ok(Opened { kernel, diagnostics, kernel_required })
}

impl Opened {
    /// Settles on what works with the privileges that are left; a kernel program that cannot be read is detached.
    ///
    /// # Errors
    /// When only the kernel program would do and its map cannot be read.
    pub fn choose(self) -> anyhow::Result<Chosen> {
        let Some((kernel, cgroup)) = self.kernel else { return Ok(Chosen { probe: Box::new(self.diagnostics), events: None }) };
        let Some(mut kernel) = readable(kernel, self.kernel_required)? else {
            return Ok(Chosen { probe: Box::new(self.diagnostics), events: None });
        };
        tracing::info!("measuring with ebpf: the kernel program is attached to {}", cgroup.display());
        let events = kernel.take_events();
        Ok(Chosen { probe: Box::new(Joined::new(kernel, self.diagnostics)), events })
    }
}

/// How often the program refreshes a connection at most. Looks are 50 ms apart or more, and chunks often less: most acknowledgements then
/// cost one look into the map, and what is read is at most this much older.
const UPDATE_INTERVAL_NS: u64 = 20_000_000;

fn attach(cli: &ProbeArgs) -> Result<(EbpfProbe, PathBuf), AttachError> {
    let cgroup = cli.cgroup.clone().map_or_else(cgroup2_mount, Ok)?;
    let config = Config::watching(&cli.watch_port).expect("the command line allows no more ports than the program");
    let config = Config { update_interval_ns: UPDATE_INTERVAL_NS, ..config };
    let mut probe = EbpfProbe::attach(&cgroup, &config)?;
    if cli.bpf_stats
        && let Err(error) = probe.enable_statistics()
    {
        tracing::warn!("--bpf-stats: {error}; what the kernel program costs is not counted");
    }
    Ok((probe, cgroup))
}

/// Looks once: `None` (and the program is dropped) where that fails and something else will do.
fn readable<K: KernelStats>(mut kernel: K, required: bool) -> anyhow::Result<Option<K>> {
    const UNREADABLE: &str = "the kernel program's map cannot be read without privileges (kernels before 6.0 may refuse it where \
                              kernel.unprivileged_bpf_disabled is set)";
    match kernel.visit(&mut |_| {}) {
        Ok(()) => Ok(Some(kernel)),
        Err(error) if required => bail!("--probe ebpf: {UNREADABLE}: {error}"),
        Err(error) => {
            tracing::info!("measuring with sock_diag: {UNREADABLE}: {error}");
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use tokenflow_ebpf_common::ConnectionStats;

    use super::*;
    use crate::probe::ProbeCounters;

    #[derive(Debug)]
    struct Kernel(Result<(), &'static str>);

    impl KernelStats for Kernel {
        fn visit(&mut self, _: &mut dyn FnMut(&ConnectionStats)) -> Result<(), Box<dyn std::error::Error>> {
            Ok(self.0?)
        }

        fn now_ns(&self) -> u64 {
            0
        }

        fn get(&self, _: u64) -> Result<Option<ConnectionStats>, Box<dyn std::error::Error>> {
            Ok(None)
        }

        fn counters(&self) -> ProbeCounters {
            ProbeCounters::default()
        }
    }

    #[test]
    fn a_map_that_cannot_be_read_is_told_before_the_server_says_that_it_is_ready() {
        for required in [false, true] {
            assert!(readable(Kernel(Ok(())), required).unwrap().is_some());
        }
        assert!(readable(Kernel(Err("EPERM")), false).unwrap().is_none());
        let error = readable(Kernel(Err("EPERM")), true).unwrap_err().to_string();
        assert!(error.starts_with("--probe ebpf: ") && error.ends_with(": EPERM") && !error.contains('\n'), "{error}");
    }
}
