//! The kernel program: loaded, attached to a cgroup, read.
//!
//! [`EbpfProbe::attach`] does everything that needs privilege and starts no thread, so that the caller may drop its capabilities next; what
//! needs a runtime comes after, with [`EbpfProbe::start`]. It needs Linux 5.8 or newer; reading the map without privileges on kernels before
//! 6.0 with `kernel.unprivileged_bpf_disabled` set may fail.

mod cgroup;
mod connections;
mod error;
mod events;

use std::{io, os::fd::OwnedFd, path::Path};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, PerCpuArray},
    programs::{CgroupAttachMode, SockOps},
    sys::{Stats, enable_stats},
};
use aya_log::EbpfLogger;
use tokenflow_ebpf_common::{Config, ConnectionStats, Counter, MAX_CONNECTIONS};
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::Handle,
    task::JoinHandle,
};

pub use cgroup::{cgroup2_mount, ensure_cgroup2};
pub use error::{AttachError, ReadError};
pub use events::EventRing;

use connections::Connections;

/// Built from `ebpf/` by `cargo xtask build-ebpf`; CI proves that it is what the source says.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../ebpf/prebuilt/tokenflow.o"));

const PROGRAM: &str = "tokenflow";

/// What the program could not do, over all CPUs since it was loaded; see [`Counter`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub map_full: u64,
    pub ring_full: u64,
    pub callbacks_refused: u64,
}

/// The attached program. Dropping it detaches and unloads.
pub struct EbpfProbe {
    connections: Connections,
    counters: PerCpuArray<MapData, u64>,
    /// Until [`Self::take_events`].
    events: Option<EventRing>,
    /// Until [`Self::start`]; must exist before the program is loaded, since it holds one of its maps.
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
    log_task: Option<JoinHandle<()>>,
    /// While it is open the kernel counts what programs cost.
    statistics: Option<OwnedFd>,
    /// Holds the program and its link.
    ebpf: Ebpf,
}

impl EbpfProbe {
    /// Loads the program and attaches it to `cgroup`, a cgroup v2 folder: connections of the processes in it and below it are measured from
    /// their handshake on. The program's own diagnostics go to the `log` crate's logger as set when this is called.
    ///
    /// Needs Linux 5.8 or newer and, in the calling thread, CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (before 5.11 also room in
    /// RLIMIT_MEMLOCK, which is raised if need be).
    ///
    /// # Errors
    ///
    /// Each names the call that failed and what would help.
    pub fn attach(cgroup: &Path, config: &Config) -> Result<Self, AttachError> {
        Self::attach_with_room(cgroup, config, MAX_CONNECTIONS)
    }

    /// As [`Self::attach`], with room for about so many connections; of more, those that were quiet longest are left to other probes.
    ///
    /// # Errors
    ///
    /// As [`Self::attach`].
    pub fn attach_with_room(cgroup: &Path, config: &Config, most_connections: u32) -> Result<Self, AttachError> {
        let cgroup = cgroup::open(cgroup)?;
        let mut loader = EbpfLoader::new();
        // The program has no CO-RE relocations, so the kernel's own BTF (megabytes to parse) is not needed.
        loader.btf(None).override_global("CONFIG", config, true).map_max_entries("CONNECTIONS", most_connections);
        let mut ebpf = loader.load(OBJECT).map_err(AttachError::load)?;
        let logger = EbpfLogger::init(&mut ebpf)?;

        let program: &mut SockOps = ebpf.program_mut(PROGRAM).ok_or(AttachError::Missing(PROGRAM))?.try_into()?;
        program.load().map_err(AttachError::verify)?;
        program.attach(cgroup, CgroupAttachMode::Single).map_err(AttachError::attach)?;

        Ok(Self {
            connections: Connections::new(take_map(&mut ebpf, "CONNECTIONS")?)?,
            counters: PerCpuArray::try_from(take_map(&mut ebpf, "COUNTERS")?)?,
            events: Some(EventRing::new(take_map(&mut ebpf, "EVENTS")?)?),
            logger: Some(logger),
            log_task: None,
            statistics: None,
            ebpf,
        })
    }

    /// Passes the program's diagnostics on from a task of this runtime, until the probe is dropped.
    ///
    /// # Errors
    ///
    /// Where the runtime has no reactor to poll with.
    pub fn start(&mut self, runtime: &Handle) -> io::Result<()> {
        let Some(logger) = self.logger.take() else { return Ok(()) };
        let _guard = runtime.enter();
        // SAFETY: the logger owns its descriptor and keeps it open as long as it lives, inside the `AsyncFd`.
        let mut logger = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) }?;
        self.log_task = Some(runtime.spawn(async move {
            while let Ok(mut ready) = logger.readable_mut().await {
                ready.get_inner_mut().flush();
                ready.clear_ready();
            }
        }));
        Ok(())
    }

    /// Visits every tracked connection, in no order, a few hundred per system call. One that the kernel moves meanwhile may come twice.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses to read the map.
    pub fn for_each(&mut self, visit: impl FnMut(&ConnectionStats)) -> Result<(), ReadError> {
        self.connections.for_each(visit)
    }

    /// One connection by its `SO_COOKIE`; `None` where it is not tracked.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses to read the map.
    pub fn get(&self, cookie: u64) -> Result<Option<ConnectionStats>, ReadError> {
        self.connections.get(cookie)
    }

    /// The ring of events, for a task of its own to poll; `None` when it was taken before.
    pub fn take_events(&mut self) -> Option<EventRing> {
        self.events.take()
    }

    /// # Errors
    ///
    /// Where the kernel refuses to read the map.
    pub fn counters(&self) -> Result<Counters, ReadError> {
        let sum = |counter: Counter| -> Result<u64, ReadError> { Ok(self.counters.get(&(counter as u32), 0)?.iter().sum()) };
        Ok(Counters {
            map_full: sum(Counter::MapFull)?,
            ring_full: sum(Counter::RingFull)?,
            callbacks_refused: sum(Counter::CallbacksRefused)?,
        })
    }

    /// Has the kernel count what its programs cost for as long as this lives. Needs CAP_SYS_ADMIN.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn enable_statistics(&mut self) -> io::Result<()> {
        self.statistics = Some(enable_stats(Stats::RunTime).map_err(|error| error.io_error)?);
        Ok(())
    }

    /// How often the program ran and how long in all; zeros unless [`Self::enable_statistics`] or `kernel.bpf_stats_enabled` has it counted.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses to describe the program.
    pub fn run_statistics(&self) -> Result<(u64, std::time::Duration), ReadError> {
        let program: &SockOps = self.ebpf.program(PROGRAM).expect("attached").try_into()?;
        let info = program.info()?;
        Ok((info.run_count(), info.run_time()))
    }
}

impl Drop for EbpfProbe {
    fn drop(&mut self) {
        if let Some(task) = self.log_task.take() {
            task.abort();
        }
    }
}

// The poller moves the probe to its own thread.
const _: fn() = || {
    fn is_send<T: Send>() {}
    is_send::<EbpfProbe>();
    is_send::<EventRing>();
};

fn take_map(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, AttachError> {
    ebpf.take_map(name).ok_or(AttachError::Missing(name))
}
