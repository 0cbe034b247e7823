//! The kernel program as a host runs it: verified, attached to a cgroup, fed with real TCP. Needs root; says so and passes without it.

mod cgroup;
mod loopback;
mod namespaces;
mod narrow_link;
mod privileges;
mod socket;

use std::{
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use tokenflow_ebpf_common::Config;
use tokenflow_hint_server::probe::ebpf::{AttachError, EbpfProbe};

/// A cgroup that holds this process and nothing else, one test at a time. Sockets made before it belong to another cgroup.
struct Ground {
    cgroup: cgroup::OwnCgroup,
    _alone: MutexGuard<'static, ()>,
}

impl Ground {
    /// `None`, with the reason printed, without root.
    fn try_new() -> Option<Self> {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // SAFETY: has no arguments and cannot fail.
        if unsafe { libc::geteuid() } != 0 {
            eprintln!("skipped: making a cgroup and loading a kernel program needs root");
            return None;
        }
        Some(Self { cgroup: cgroup::OwnCgroup::enter(), _alone: alone })
    }

    /// `None`, with the reason printed, where not even root may; a machine for tests (`CI` is set) must let it.
    fn attach(&self, config: Config) -> Option<EbpfProbe> {
        match EbpfProbe::attach(self.cgroup.path(), &config) {
            Ok(probe) => Some(probe),
            Err(error @ (AttachError::NotPermitted { .. } | AttachError::Unsupported { .. })) => {
                assert!(std::env::var_os("CI").is_none(), "root cannot attach here, and CI is set: {error}");
                eprintln!("skipped: {error}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Every callback refreshes and every retransmission is told.
fn unlimited(ports: &[u16]) -> Config {
    Config { update_interval_ns: 0, event_interval_ns: 0, ..Config::watching(ports).unwrap() }
}

/// Looks until there is something; the kernel tells of a packet shortly after the call that sent it returns.
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
