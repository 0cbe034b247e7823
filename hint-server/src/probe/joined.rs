//! The kernel program's connections joined with socket diagnostics by cookie.
//!
//! Socket diagnostics read the live socket and know what the program cannot (unsent bytes, the application-limited bit); the program counts
//! timeouts on every kernel and sees connections of other network namespaces in its cgroup, of which only delay and loss are then known.

use std::{
    collections::{HashMap, HashSet},
    io,
    time::Duration,
};

use tokenflow_ebpf_common::ConnectionStats;
use tokenflow_hint_api::Source;
use tokenflow_score::Measurement;
use tokio::runtime::Handle;

use super::{Identity, Look, Probe, ProbeCounters, ProbeError};

/// A connection that only the program knows is forgotten after this long without an ACK: its end may have been missed.
const UNSEEN_EXPIRES_NS: u64 = 60_000_000_000;

/// `include/net/tcp_states.h`.
const ESTABLISHED: u32 = 1;
const CLOSE_WAIT: u32 = 8;

/// Where the kernel program's measurements come from.
pub trait KernelStats: Send {
    /// Visits every tracked connection.
    ///
    /// # Errors
    /// When the map cannot be read.
    fn visit(&mut self, visit: &mut dyn FnMut(&ConnectionStats)) -> Result<(), Box<dyn std::error::Error>>;

    /// One connection by its cookie; `None` where it is not tracked.
    ///
    /// # Errors
    /// When the map cannot be read.
    fn get(&self, cookie: u64) -> Result<Option<ConnectionStats>, Box<dyn std::error::Error>>;

    /// `CLOCK_MONOTONIC`, nanoseconds: the clock of the statistics.
    fn now_ns(&self) -> u64;

    /// See [`Probe::counters`]; of them those of the program.
    fn counters(&self) -> ProbeCounters;

    /// See [`Probe::start`].
    ///
    /// # Errors
    /// Where the runtime cannot poll.
    fn start(&mut self, _runtime: &Handle) -> io::Result<()> {
        Ok(())
    }
}

pub struct Joined<K, D> {
    kernel: K,
    diagnostics: D,
    stats: HashMap<u64, ConnectionStats>,
    /// Whether the program's map could be read at the last look; said once when it changes.
    readable: bool,
    /// How many looks in a row socket diagnostics have not answered.
    undiagnosed: u32,
    /// Timeouts last told of each connection that both sides knew. One side's count may restart where the other's goes on, and what falls
    /// and rises again would read as new timeouts.
    rtos: HashMap<u64, u64>,
}

impl<K: KernelStats, D: Probe> Joined<K, D> {
    pub fn new(kernel: K, diagnostics: D) -> Self {
        Self { kernel, diagnostics, stats: HashMap::new(), readable: true, undiagnosed: 0, rtos: HashMap::new() }
    }

    fn read_kernel(&mut self) {
        self.stats.clear();
        let stats = &mut self.stats;
        let read = self.kernel.visit(&mut |connection| {
            stats.insert(connection.cookie, *connection);
        });
        if read.is_err() {
            // Half a map is no map: a connection that it lacks would flicker.
            self.stats.clear();
        }
        match (read, self.readable) {
            (Err(error), true) => tracing::warn!("measuring with sock_diag alone: the kernel program's map cannot be read: {error}"),
            (Ok(()), false) => tracing::info!("the kernel program's map can be read again"),
            (Err(_), false) | (Ok(()), true) => return,
        }
        self.readable = !self.readable;
    }

    /// Socket diagnostics' looks. Where they fail once, so does the whole look, and what is known stands; where they go on failing, the
    /// program's own looks are better than none.
    fn diagnose(&mut self, at: Duration, looks: &mut Vec<Look>) -> Result<(), ProbeError> {
        let first = looks.len();
        let Err(error) = self.diagnostics.looks(at, looks) else {
            self.undiagnosed = 0;
            return Ok(());
        };
        self.undiagnosed = self.undiagnosed.saturating_add(1);
        if self.undiagnosed == 1 || !self.readable {
            return Err(error);
        }
        if self.undiagnosed == 2 {
            tracing::warn!("measuring with the kernel program alone, which knows no queues: {error}");
        }
        looks.truncate(first);
        Ok(())
    }
}

impl<K: KernelStats, D: Probe> Probe for Joined<K, D> {
    fn source(&self) -> Source {
        if self.readable { Source::Ebpf } else { self.diagnostics.source() }
    }

    fn looks(&mut self, at: Duration, looks: &mut Vec<Look>) -> Result<(), ProbeError> {
        self.read_kernel();
        let first = looks.len();
        self.diagnose(at, looks)?;
        let told = std::mem::take(&mut self.rtos);
        for look in &mut looks[first..] {
            if let Some(stats) = self.stats.remove(&look.identity.cookie) {
                (look.measurement, look.source) = (join(&look.measurement, &stats), Source::Ebpf);
                self.rtos.insert(look.identity.cookie, look.measurement.rtos);
            }
        }
        let now_ns = self.kernel.now_ns();
        looks.extend(self.stats.values().filter(|stats| is_current(stats, now_ns)).map(|stats| kernel_only(at, stats)));
        for look in &mut looks[first..] {
            if let Some(&told) = told.get(&look.identity.cookie) {
                look.measurement.rtos = look.measurement.rtos.max(told);
                self.rtos.insert(look.identity.cookie, look.measurement.rtos);
            }
        }
        Ok(())
    }

    fn looks_at(&mut self, at: Duration, which: &[Identity], looks: &mut Vec<Look>) -> Result<(), ProbeError> {
        let first = looks.len();
        self.diagnostics.looks_at(at, which, looks)?;
        // One that diagnostics know keeps what the last whole round joined; the program's own are read one by one.
        let mut known = HashSet::with_capacity(looks.len() - first);
        for look in &mut looks[first..] {
            known.insert(look.identity.cookie);
            if let Ok(Some(stats)) = self.kernel.get(look.identity.cookie) {
                (look.measurement, look.source) = (join(&look.measurement, &stats), Source::Ebpf);
            }
        }
        let now_ns = self.kernel.now_ns();
        for identity in which.iter().filter(|identity| !known.contains(&identity.cookie)) {
            // Where it cannot be read now the next whole round says so.
            if let Ok(Some(stats)) = self.kernel.get(identity.cookie)
                && is_current(&stats, now_ns)
            {
                looks.push(kernel_only(at, &stats));
            }
        }
        for look in &mut looks[first..] {
            if let Some(told) = self.rtos.get_mut(&look.identity.cookie) {
                look.measurement.rtos = look.measurement.rtos.max(*told);
                *told = look.measurement.rtos;
            }
        }
        Ok(())
    }

    fn start(&mut self, runtime: &Handle) -> io::Result<()> {
        self.kernel.start(runtime)
    }

    fn counters(&self) -> ProbeCounters {
        let diagnostics = self.diagnostics.counters();
        ProbeCounters {
            netlink_overruns: diagnostics.netlink_overruns,
            dumps_interrupted: diagnostics.dumps_interrupted,
            ..self.kernel.counters()
        }
    }
}

/// Counters only rise, so the higher of two is the newer; the rest is socket diagnostics', which read the socket just now.
fn join(diagnostics: &Measurement, stats: &ConnectionStats) -> Measurement {
    Measurement {
        srtt_us: if diagnostics.srtt_us > 0 { diagnostics.srtt_us } else { stats.srtt_us },
        min_rtt_us: match (diagnostics.min_rtt_us, stats.min_rtt_us) {
            (0, us) | (us, 0) => us,
            (a, b) => a.min(b),
        },
        retransmits: diagnostics.retransmits.max(stats.total_retrans.into()),
        rtos: diagnostics.rtos.max(stats.rto_count.into()),
        bytes_acked: diagnostics.bytes_acked.max(stats.bytes_acked),
        ..*diagnostics
    }
}

fn is_current(stats: &ConnectionStats, now_ns: u64) -> bool {
    matches!(stats.state, ESTABLISHED | CLOSE_WAIT) && now_ns.saturating_sub(stats.last_update_ns) < UNSEEN_EXPIRES_NS
}

/// The program's updates are limited in rate, so its count of segments in flight may be from before the last ACK of a burst; it would read
/// as a stall for ever, so no backlog is claimed.
fn kernel_only(at: Duration, stats: &ConnectionStats) -> Look {
    Look {
        identity: Identity { cookie: stats.cookie, local: stats.local.socket_addr(), peer: stats.remote.socket_addr() },
        measurement: Measurement {
            at,
            srtt_us: stats.srtt_us,
            min_rtt_us: stats.min_rtt_us,
            data_segs_out: stats.data_segs_out.into(),
            retransmits: stats.total_retrans.into(),
            rtos: stats.rto_count.into(),
            bytes_acked: stats.bytes_acked,
            undelivered_bytes: 0,
            delivery_rate_bytes_per_s: stats.delivery_rate_bytes_per_s(),
            app_limited: None,
        },
        source: Source::Ebpf,
    }
}

#[cfg(test)]
mod tests {
    use tokenflow_ebpf_common::Endpoint;

    use super::*;

    /// What the map holds, and the error that reading it ends with.
    struct Kernel(Vec<ConnectionStats>, Result<(), &'static str>);

    impl KernelStats for Kernel {
        fn visit(&mut self, visit: &mut dyn FnMut(&ConnectionStats)) -> Result<(), Box<dyn std::error::Error>> {
            self.0.iter().for_each(visit);
            Ok(self.1?)
        }

        fn now_ns(&self) -> u64 {
            100_000_000_000
        }

        fn get(&self, cookie: u64) -> Result<Option<ConnectionStats>, Box<dyn std::error::Error>> {
            Ok(self.0.iter().find(|stats| stats.cookie == cookie).copied())
        }

        fn counters(&self) -> ProbeCounters {
            ProbeCounters::default()
        }
    }

    /// What it sees, unless it fails half-way.
    struct Diagnostics(Vec<Look>, bool);

    impl Probe for Diagnostics {
        fn source(&self) -> Source {
            Source::SockDiag
        }

        fn looks(&mut self, _: Duration, looks: &mut Vec<Look>) -> Result<(), ProbeError> {
            looks.extend_from_slice(&self.0);
            match self.1 {
                true => Ok(()),
                false => Err(ProbeError::Malformed),
            }
        }

        fn looks_at(&mut self, _: Duration, which: &[Identity], looks: &mut Vec<Look>) -> Result<(), ProbeError> {
            looks.extend(self.0.iter().filter(|look| which.contains(&look.identity)));
            Ok(())
        }
    }

    fn stats(cookie: u64) -> ConnectionStats {
        ConnectionStats {
            cookie,
            srtt_us: 500,
            min_rtt_us: 30,
            total_retrans: 4,
            rto_count: 2,
            bytes_acked: 900,
            packets_out: 3,
            state: ESTABLISHED,
            last_update_ns: 99_000_000_000,
            local: Endpoint::v4(u32::from_ne_bytes([192, 0, 2, 1]), 8000),
            remote: Endpoint::v4(u32::from_ne_bytes([192, 0, 2, 2]), 40000),
            ..Default::default()
        }
    }

    fn diagnosed(cookie: u64) -> Look {
        Look {
            identity: Identity { cookie, local: "192.0.2.1:8000".parse().unwrap(), peer: "192.0.2.2:40000".parse().unwrap() },
            measurement: Measurement {
                srtt_us: 700,
                min_rtt_us: 40,
                retransmits: 3,
                bytes_acked: 1000,
                undelivered_bytes: 660,
                app_limited: Some(false),
                ..Default::default()
            },
            source: Source::SockDiag,
        }
    }

    fn looks(probe: &mut impl Probe) -> Vec<Look> {
        let mut looks = Vec::new();
        probe.looks(Duration::ZERO, &mut looks).unwrap();
        looks.sort_by_key(|look| look.identity.cookie);
        looks
    }

    #[test]
    fn each_side_gives_what_it_knows_best() {
        let mut probe = Joined::new(Kernel(vec![stats(1)], Ok(())), Diagnostics(vec![diagnosed(1), diagnosed(2)], true));
        let looks = looks(&mut probe);
        let joined = Measurement { min_rtt_us: 30, retransmits: 4, rtos: 2, ..diagnosed(1).measurement };
        assert_eq!((looks[0].measurement, looks[0].source), (joined, Source::Ebpf));
        assert_eq!(looks[1], diagnosed(2), "older than the program, so known to diagnostics alone");
    }

    #[test]
    fn a_connection_of_another_namespace_claims_no_backlog() {
        let closed = ConnectionStats { state: 4, ..stats(8) };
        let silent = ConnectionStats { last_update_ns: 1, ..stats(9) };
        let mut probe = Joined::new(Kernel(vec![stats(7), closed, silent], Ok(())), Diagnostics(vec![], true));
        let looks = looks(&mut probe);
        assert_eq!(looks.len(), 1);
        assert_eq!(looks[0].identity, Identity { cookie: 7, ..diagnosed(7).identity });
        assert_eq!((looks[0].measurement.undelivered_bytes, looks[0].measurement.srtt_us), (0, 500));
    }

    #[test]
    fn without_the_map_diagnostics_go_on_alone() {
        let mut probe = Joined::new(Kernel(vec![], Err("EPERM")), Diagnostics(vec![diagnosed(1)], true));
        assert_eq!(looks(&mut probe), [diagnosed(1)]);
        assert_eq!(probe.source(), Source::SockDiag);
        probe.kernel = Kernel(vec![], Ok(()));
        looks(&mut probe);
        assert_eq!(probe.source(), Source::Ebpf);
    }

    #[test]
    fn a_map_that_fails_half_way_is_not_joined() {
        let mut probe = Joined::new(Kernel(vec![stats(1), stats(7)], Err("EFAULT")), Diagnostics(vec![diagnosed(1)], true));
        assert_eq!(looks(&mut probe), [diagnosed(1)]);
        assert_eq!(probe.source(), Source::SockDiag);
    }

    #[test]
    fn timeouts_do_not_fall_when_the_map_comes_and_goes() {
        let resetting = |rtos| Look { measurement: Measurement { rtos, ..diagnosed(1).measurement }, ..diagnosed(1) };
        let mut probe = Joined::new(Kernel(vec![stats(1)], Ok(())), Diagnostics(vec![resetting(0)], true));
        let mut told = Vec::new();
        for (map, diagnosed) in [(Ok(()), 0), (Err("EPERM"), 1), (Err("EPERM"), 0), (Ok(()), 0), (Ok(()), 3), (Ok(()), 0)] {
            probe.kernel.1 = map;
            probe.diagnostics.0 = vec![resetting(diagnosed)];
            told.push(looks(&mut probe)[0].measurement.rtos);
        }
        assert_eq!(told, [2, 2, 2, 2, 3, 3]);
        probe.kernel = Kernel(vec![], Ok(()));
        probe.diagnostics.0 = vec![];
        looks(&mut probe);
        assert!(probe.rtos.is_empty(), "what is gone is forgotten");
    }

    #[test]
    fn without_diagnostics_the_program_goes_on_alone_from_the_second_look() {
        let mut probe = Joined::new(Kernel(vec![stats(1)], Ok(())), Diagnostics(vec![diagnosed(1)], false));
        probe.looks(Duration::ZERO, &mut Vec::new()).unwrap_err();
        let alone = looks(&mut probe);
        assert_eq!((alone.len(), alone[0].measurement.srtt_us, alone[0].source), (1, 500, Source::Ebpf));
        probe.kernel.1 = Err("EPERM");
        probe.looks(Duration::ZERO, &mut Vec::new()).unwrap_err();
    }
}
