use std::time::Duration;

/// One look at one TCP connection. Counters are cumulative since the connection began and may wrap or restart.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measurement {
    /// When it was taken, on the observer's monotonic clock.
    pub at: Duration,
    /// Smoothed round-trip time, microseconds (the kernel's `srtt_us >> 3`); 0 where not yet measured.
    pub srtt_us: u32,
    /// The kernel's windowed minimum, microseconds; 0 where not yet measured.
    pub min_rtt_us: u32,
    /// Data segments sent, retransmissions included.
    pub data_segs_out: u64,
    /// Segments retransmitted.
    pub retransmits: u64,
    /// Retransmission timeouts that fired; 0 where the probe cannot count them.
    pub rtos: u64,
    pub bytes_acked: u64,
    /// Bytes written to the socket and not yet acknowledged: unsent plus in flight.
    pub undelivered_bytes: u64,
    /// The kernel's latest rate sample, bytes/s; 0 where none. Counted in whole segments: too high for small writes.
    pub delivery_rate_bytes_per_s: u64,
    /// Whether that sample was limited by the application rather than the network; `None` where the probe cannot tell.
    pub app_limited: Option<bool>,
}

/// By how much a cumulative counter rose. One that fell has wrapped or restarted: that look counts nothing rather than a huge jump.
pub(crate) fn increase(before: u64, after: u64) -> u64 {
    after.saturating_sub(before)
}
