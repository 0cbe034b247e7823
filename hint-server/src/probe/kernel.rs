//! The loaded kernel program as a source of statistics, and its events.

use std::{io, sync::Arc, time::Duration};

use tokenflow_ebpf_common::{ConnectionStats, EventKind};
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::Handle,
    sync::Notify,
};

use super::{
    ebpf::{Counters, EbpfProbe, EventRing},
    joined::KernelStats,
};
use crate::publish::Feed;

impl KernelStats for EbpfProbe {
    fn visit(&mut self, visit: &mut dyn FnMut(&ConnectionStats)) -> Result<(), Box<dyn std::error::Error>> {
        Ok(self.for_each(visit)?)
    }

    fn now_ns(&self) -> u64 {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `now` is a valid place for what the call writes.
        let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
        assert_eq!(result, 0, "CLOCK_MONOTONIC always exists");
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32).as_nanos() as u64
    }

    fn counters(&self) -> Counters {
        // Where the counters cannot be read the map cannot either, which is said there.
        EbpfProbe::counters(self).unwrap_or_default()
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
