//! The loaded kernel program as a source of statistics, and its events.

use std::{io, sync::Arc};

use tokenflow_ebpf_common::{ConnectionStats, EventKind};
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::Handle,
    sync::Notify,
};

use super::{
    ProbeCounters, clock,
    ebpf::{EbpfProbe, EventRing},
    joined::KernelStats,
};
use crate::publish::Feed;

impl KernelStats for EbpfProbe {
    fn visit(&mut self, visit: &mut dyn FnMut(&ConnectionStats)) -> Result<(), Box<dyn std::error::Error>> {
        Ok(self.for_each(visit)?)
    }

    fn now_ns(&self) -> u64 {
        clock::monotonic().as_nanos() as u64
    }

    fn get(&self, cookie: u64) -> Result<Option<ConnectionStats>, Box<dyn std::error::Error>> {
        Ok(EbpfProbe::get(self, cookie)?)
    }

    fn counters(&self) -> ProbeCounters {
        // Where the counters cannot be read the map cannot either, which is said there.
        let (program_runs, program_time) = self.run_statistics().unwrap_or_default();
        ProbeCounters { kernel: EbpfProbe::counters(self).unwrap_or_default(), program_runs, program_time, ..ProbeCounters::default() }
    }

    fn start(&mut self, runtime: &Handle) -> io::Result<()> {
        EbpfProbe::start(self, runtime)
    }
}

/// Counts events, notes which connections closed and wakes the poller, until dropped.
///
/// # Errors
/// Where the runtime cannot poll the ring.
pub async fn follow_events(ring: EventRing, feed: &Feed, wake: Arc<Notify>) -> io::Result<()> {
    // SAFETY: the ring owns its descriptor and keeps it open as long as it lives, inside the `AsyncFd`.
    let mut ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }?;
    loop {
        let mut closed = Vec::new();
        let metrics = &feed.metrics;
        let mut ready = ring.readable_mut().await?;
        let events = ready.get_inner_mut().drain(|event| {
            let count = match event.kind() {
                Some(EventKind::Established) => &metrics.established_events,
                Some(EventKind::Retransmit) => &metrics.retransmit_events,
                Some(EventKind::Rto) => &metrics.rto_events,
                Some(EventKind::Closed) => {
                    closed.push(event.cookie);
                    &metrics.closed_events
                }
                None => return,
            };
            count.add(1);
        });
        ready.clear_ready();
        feed.tracker().closed(&closed);
        if events > 0 {
            wake.notify_one();
        }
    }
}
