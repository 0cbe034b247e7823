//! A stream of chunks over one bottleneck link, in steps of a millisecond: what the kernel would report of it.
//! Small enough to check by hand; the real thing is tested in namespaces.

use std::{collections::VecDeque, time::Duration};

use crate::{ConnectionScore, Measurement};

pub(crate) const CHUNK: u64 = 220;
const WIRE_OVERHEAD: u64 = 66;
const MSS: u64 = 1448;

pub(crate) struct Link {
    pub(crate) now_ms: u64,
    pub(crate) bits_per_s: f64,
    pub(crate) base_rtt_us: u64,
    /// The application writes a chunk this often; 0 for never.
    pub(crate) chunk_every_ms: u64,
    /// Undelivered bytes at which the application waits.
    pub(crate) window_bytes: u64,
    /// The receiver acknowledges nothing while set.
    pub(crate) blackhole: bool,
    pub(crate) app_limited: Option<bool>,
    /// When each undelivered chunk was sent and when its acknowledgement arrives, microseconds.
    in_flight: VecDeque<(u64, u64)>,
    free_at_us: u64,
    srtt_us: f64,
    min_rtt_us: u64,
    acked: u64,
    segments: u64,
    kernel_rate: u64,
}

impl Link {
    pub(crate) fn new(bits_per_s: f64, base_rtt_us: u64) -> Self {
        Self {
            now_ms: 0,
            bits_per_s,
            base_rtt_us,
            chunk_every_ms: 20,
            window_bytes: u64::MAX,
            blackhole: false,
            app_limited: Some(false),
            in_flight: VecDeque::new(),
            free_at_us: 0,
            // The handshake measured the empty path.
            srtt_us: base_rtt_us as f64,
            min_rtt_us: base_rtt_us,
            acked: 0,
            segments: 0,
            kernel_rate: 0,
        }
    }

    fn step(&mut self) {
        self.now_ms += 1;
        let now_us = self.now_ms * 1000;
        while !self.blackhole && self.in_flight.front().is_some_and(|&(_, acked_at)| acked_at <= now_us) {
            let (sent, acked_at) = self.in_flight.pop_front().unwrap();
            self.srtt_us += ((acked_at - sent) as f64 - self.srtt_us) / 8.0;
            self.acked += CHUNK;
            self.kernel_rate = (self.bits_per_s / 8.0) as u64 * MSS / CHUNK;
        }
        let due = self.chunk_every_ms > 0 && self.now_ms.is_multiple_of(self.chunk_every_ms);
        if due && self.undelivered() < self.window_bytes {
            let start = self.free_at_us.max(now_us);
            self.free_at_us = start + ((CHUNK + WIRE_OVERHEAD) as f64 * 8e6 / self.bits_per_s) as u64;
            self.in_flight.push_back((now_us, self.free_at_us + self.base_rtt_us));
            self.segments += 1;
        }
    }

    /// Changes the rate; what is queued leaves at the new one.
    pub(crate) fn set_rate(&mut self, bits_per_s: f64) {
        self.bits_per_s = bits_per_s;
        let mut free_at = self.now_ms * 1000;
        for (_, acked_at) in &mut self.in_flight {
            free_at += ((CHUNK + WIRE_OVERHEAD) as f64 * 8e6 / bits_per_s) as u64;
            *acked_at = free_at + self.base_rtt_us;
        }
        self.free_at_us = free_at;
    }

    pub(crate) fn undelivered(&self) -> u64 {
        self.in_flight.len() as u64 * CHUNK
    }

    pub(crate) fn look(&self) -> Measurement {
        Measurement {
            at: Duration::from_millis(self.now_ms),
            srtt_us: self.srtt_us as u32,
            min_rtt_us: self.min_rtt_us as u32,
            data_segs_out: self.segments,
            bytes_acked: self.acked,
            undelivered_bytes: self.undelivered(),
            delivery_rate_bytes_per_s: self.kernel_rate,
            app_limited: self.app_limited,
            ..Measurement::default()
        }
    }

    /// Runs for `ms` milliseconds, looking every `every_ms`; `check` sees the score after each look.
    pub(crate) fn run(&mut self, score: &mut ConnectionScore, ms: u64, every_ms: u64, mut check: impl FnMut(&Self, &ConnectionScore)) {
        for _ in 0..ms {
            self.step();
            if self.now_ms.is_multiple_of(every_ms) {
                score.observe(&self.look());
                check(self, score);
            }
        }
    }
}
