//! One TCP connection from the server to a client: what is written and not sent, what is sent and not acknowledged, and what the kernel
//! would report of it.
//!
//! Small writes go out as small segments while the congestion window lets them; behind a full window they are put together.

use std::collections::VecDeque;

use tokenflow_score::Measurement;

use super::{
    congestion::{Acked, CongestionControl},
    time::{MILLISECOND, Nanos, duration, from_seconds, seconds},
};

/// Payload of a full segment.
const MSS: u64 = 1448;
/// Ethernet, IPv4 and TCP with timestamps.
const HEADER_BYTES: u64 = 66;
/// Least time until an unanswered segment is sent again.
const LEAST_RTO: Nanos = 200 * MILLISECOND;

#[derive(Clone, Debug)]
struct InFlight {
    payload: u64,
    sent_at: Nanos,
    /// Segments that had been delivered by then, for the rate.
    delivered_before: u64,
    /// Nothing more was to be sent.
    app_limited: bool,
    acked: bool,
    /// Times it was sent again.
    tries: u32,
}

/// A client that reads at a pace of its own, with a receive buffer of a size of its own.
#[derive(Clone, Copy, Debug)]
pub struct Reader {
    pub bytes_per_s: f64,
    pub buffer_bytes: u64,
}

#[derive(Clone, Debug)]
struct ReaderState {
    reader: Reader,
    read: f64,
    at: Nanos,
    /// Whether the window's opening is waited for.
    expected: bool,
}

#[derive(Clone, Debug)]
pub struct Connection {
    /// The queues on its way, in order.
    pub path: Vec<usize>,
    /// From the client back to the server; acknowledgements wait in no queue.
    pub way_back: Nanos,
    congestion: CongestionControl,
    reader: Option<ReaderState>,
    /// Written to the socket (or waiting before it) and not sent.
    unsent: u64,
    in_flight: VecDeque<InFlight>,
    /// Number of the first in `in_flight`.
    first: u64,
    /// Sent and neither acknowledged, selectively or not, nor known to be lost.
    outstanding: u64,
    sent_bytes: u64,
    acked_bytes: u64,
    window_limited: bool,
    last_loss: Option<Nanos>,
    delivered: u64,
    srtt: f64,
    rtt_variance: f64,
    min_rtt: Nanos,
    segments_out: u64,
    retransmits: u64,
    rtos: u64,
    kernel_rate: f64,
    kernel_app_limited: Option<bool>,
}

impl Connection {
    /// `handshake` is the round trip that the handshake took, and `base` the empty path's.
    pub fn new(path: Vec<usize>, way_back: Nanos, congestion: CongestionControl, reader: Option<Reader>, handshake: Nanos) -> Self {
        Self {
            path,
            way_back,
            congestion,
            reader: reader.map(|reader| ReaderState { reader, read: 0.0, at: 0, expected: false }),
            unsent: 0,
            in_flight: VecDeque::new(),
            first: 0,
            outstanding: 0,
            sent_bytes: 0,
            acked_bytes: 0,
            window_limited: false,
            last_loss: None,
            delivered: 0,
            srtt: handshake as f64,
            rtt_variance: handshake as f64 / 2.0,
            min_rtt: handshake,
            segments_out: 0,
            retransmits: 0,
            rtos: 0,
            kernel_rate: 0.0,
            kernel_app_limited: None,
        }
    }

    pub fn write(&mut self, bytes: u64) {
        self.unsent += bytes;
    }

    /// Payload that the client's kernel has, in order.
    pub fn acked_bytes(&self) -> u64 {
        self.acked_bytes
    }

    pub fn undelivered_bytes(&self) -> u64 {
        self.unsent + self.sent_bytes - self.acked_bytes
    }

    /// The next segment that may go out: its number and bytes on the wire.
    pub fn next_segment(&mut self, now: Nanos) -> Option<(u64, u32)> {
        if self.unsent == 0 {
            return None;
        }
        let payload = self.unsent.min(MSS);
        if self.outstanding as f64 + 1.0 > self.congestion.window() {
            self.window_limited = true;
            return None;
        }
        if self.room_at_reader(now) < payload {
            return None;
        }
        self.unsent -= payload;
        self.sent_bytes += payload;
        self.segments_out += 1;
        self.outstanding += 1;
        let app_limited = self.unsent == 0 && (self.outstanding as f64) < self.congestion.window();
        self.in_flight.push_back(InFlight { payload, sent_at: now, delivered_before: self.delivered, app_limited, acked: false, tries: 0 });
        self.window_limited = self.outstanding as f64 + 1.0 > self.congestion.window();
        Some((self.first + self.in_flight.len() as u64 - 1, (payload + HEADER_BYTES) as u32))
    }

    fn room_at_reader(&mut self, now: Nanos) -> u64 {
        let (sent, acked) = (self.sent_bytes, self.acked_bytes);
        self.reader.as_mut().map_or(u64::MAX, |state| {
            state.advance(now, acked);
            (state.read as u64 + state.reader.buffer_bytes).saturating_sub(sent)
        })
    }

    /// When the reader will have made room for what waits, unless that is expected already.
    pub fn expect_room(&mut self, now: Nanos) -> Option<Nanos> {
        let (unsent, sent, acked) = (self.unsent.min(MSS), self.sent_bytes, self.acked_bytes);
        let state = self.reader.as_mut().filter(|state| unsent > 0 && !state.expected)?;
        state.advance(now, acked);
        let wanted = (sent + unsent).saturating_sub(state.reader.buffer_bytes) as f64;
        // Beyond what has arrived an acknowledgement opens the window.
        if wanted <= state.read || wanted > acked as f64 {
            return None;
        }
        state.expected = true;
        Some(now + from_seconds((wanted - state.read + 1.0) / state.reader.bytes_per_s))
    }

    pub fn room_expected_now(&mut self) {
        if let Some(state) = &mut self.reader {
            state.expected = false;
        }
    }

    /// A segment's acknowledgement has come; returns whether it said anything new.
    pub fn acknowledge(&mut self, now: Nanos, number: u64) -> bool {
        let Some(index) = number.checked_sub(self.first) else { return false };
        let Some(segment) = self.in_flight.get_mut(index as usize).filter(|s| !s.acked) else { return false };
        segment.acked = true;
        let segment = segment.clone();
        self.outstanding -= 1;
        self.delivered += 1;
        let rtt = (now - segment.sent_at).max(1);
        let segments_per_s = (self.delivered - segment.delivered_before) as f64 / seconds(rtt);
        if segment.tries == 0 {
            let error = rtt as f64 - self.srtt;
            self.srtt += error / 8.0;
            self.rtt_variance += (error.abs() - self.rtt_variance) / 4.0;
            self.min_rtt = self.min_rtt.min(rtt);
            let rate = segments_per_s * MSS as f64;
            if !segment.app_limited || rate >= self.kernel_rate {
                self.kernel_rate = rate;
                self.kernel_app_limited = Some(segment.app_limited);
            }
            let (min_rtt, window_limited) = (self.min_rtt, self.window_limited);
            self.congestion.on_ack(Acked { at: now, rtt, min_rtt, segments_per_s, window_limited, app_limited: segment.app_limited });
        }
        while self.in_flight.front().is_some_and(|s| s.acked) {
            let segment = self.in_flight.pop_front().expect("there is one");
            self.first += 1;
            self.acked_bytes += segment.payload;
        }
        true
    }

    /// A segment was dropped on its way: after how long the sender will know.
    pub fn time_to_notice(&self, number: u64) -> Nanos {
        let tries = self.segment(number).map_or(0, |s| s.tries);
        let timeout = LEAST_RTO.max((self.srtt + 4.0 * self.rtt_variance) as Nanos) << tries.min(6);
        match (tries, self.outstanding) {
            // Acknowledgements of what was sent later tell before the timer, also of what was sent again (RACK, RFC 8985).
            (_, 4..) => (self.srtt * 1.25) as Nanos + MILLISECOND,
            // Or a probe of the tail does.
            (0, _) => (self.srtt * 2.0) as Nanos + 2 * MILLISECOND,
            _ => timeout,
        }
    }

    fn segment(&self, number: u64) -> Option<&InFlight> {
        self.in_flight.get(number.checked_sub(self.first)? as usize)
    }

    /// The sender knows now that a segment was lost; returns its bytes on the wire, to be sent again.
    pub fn send_again(&mut self, now: Nanos, number: u64) -> Option<u32> {
        let index = number.checked_sub(self.first)? as usize;
        let segment = self.in_flight.get_mut(index).filter(|s| !s.acked)?;
        self.rtos += u64::from(segment.tries > 0);
        segment.tries += 1;
        segment.sent_at = now;
        let bytes = (segment.payload + HEADER_BYTES) as u32;
        self.segments_out += 1;
        self.retransmits += 1;
        if self.last_loss.is_none_or(|at| now - at > self.srtt as Nanos) {
            self.last_loss = Some(now);
            self.congestion.on_loss();
        }
        Some(bytes)
    }

    /// What `TCP_INFO` and the send queue say.
    pub fn measurement(&self, now: Nanos) -> Measurement {
        Measurement {
            at: duration(now),
            srtt_us: (self.srtt / 1e3) as u32,
            min_rtt_us: (self.min_rtt / 1_000) as u32,
            data_segs_out: self.segments_out,
            retransmits: self.retransmits,
            rtos: self.rtos,
            bytes_acked: self.acked_bytes,
            undelivered_bytes: self.undelivered_bytes(),
            delivery_rate_bytes_per_s: self.kernel_rate as u64,
            app_limited: self.kernel_app_limited,
        }
    }
}

impl ReaderState {
    fn advance(&mut self, now: Nanos, arrived: u64) {
        self.read = (self.read + self.reader.bytes_per_s * seconds(now - self.at)).min(arrived as f64);
        self.at = now;
    }
}
