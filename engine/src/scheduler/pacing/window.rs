//! Decode clocked by delivery: a stream may have a window of undelivered output, and acknowledgements give credit back.
//!
//! Credit is not computed from a rate, so there is nothing to oscillate: the idea of TCP Small Queues and of byte queue limits, one layer up.

use std::time::Duration;

use super::{
    MAX_UNDELIVERED_BYTES, OPEN_WINDOW_BYTES, TARGET_QUEUE,
    law::{Credit, Law, delivery_rate, few_chunks, min_rtt, shape},
};
use crate::scheduler::StreamSignal;

#[derive(Clone, Debug)]
pub(super) struct Window {
    /// The window in force: it closes at once, but opens no faster than twofold in [`TARGET_QUEUE`]. A window so small that the
    /// link idles makes us the limit instead of the network, and the rate unknown; opening it at once would bring the queue back.
    bytes: f64,
    looked_at: Duration,
}

impl Default for Window {
    fn default() -> Self {
        Self { bytes: MAX_UNDELIVERED_BYTES as f64, looked_at: Duration::ZERO }
    }
}

impl Window {
    fn open_to(&mut self, now: Duration, signal: &StreamSignal) -> u64 {
        let elapsed = now.saturating_sub(self.looked_at).as_secs_f64() / TARGET_QUEUE.as_secs_f64();
        self.bytes = (window_bytes(signal) as f64).min(self.bytes * elapsed.exp2());
        self.looked_at = now;
        self.bytes as u64
    }
}

impl Law for Window {
    fn credit(&mut self, now: Duration, signal: &StreamSignal) -> Credit {
        Credit::until_acknowledged(self.open_to(now, signal).saturating_sub(signal.undelivered_bytes))
    }
}

/// Bytes that a stream may have undelivered: what its link carries in a round trip and [`TARGET_QUEUE`], shaped by health.
fn window_bytes(signal: &StreamSignal) -> u64 {
    let link = match delivery_rate(signal) {
        Some(rate) => rate * (min_rtt(signal) + TARGET_QUEUE).as_secs_f64(),
        None => OPEN_WINDOW_BYTES as f64,
    };
    ((link * shape(signal.health)) as u64).max(few_chunks(signal)).min(MAX_UNDELIVERED_BYTES)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn signal(health: f64, rate: Option<f64>) -> StreamSignal {
        StreamSignal { health, undelivered_bytes: 0, delivery_rate_bytes_per_s: rate, min_rtt_us: Some(50_000), chunk_bytes: 220 }
    }

    #[test]
    fn the_window_is_what_the_link_carries_in_a_round_trip_and_a_quarter_second() {
        assert_eq!(window_bytes(&signal(1.0, Some(40_000.0))), 12_000);
        assert_eq!(window_bytes(&signal(0.74, Some(40_000.0))), 6_000);
        assert_eq!(window_bytes(&signal(0.2, Some(40_000.0))), 3_000);
    }

    #[test]
    fn the_window_never_falls_below_a_few_chunks_nor_above_the_bound() {
        assert_eq!(window_bytes(&signal(0.0, Some(0.0))), 880);
        assert_eq!(window_bytes(&signal(1.0, Some(1e12))), MAX_UNDELIVERED_BYTES);
        assert_eq!(window_bytes(&StreamSignal { chunk_bytes: 0, ..signal(0.0, Some(0.0)) }), 1);
    }

    #[test]
    fn a_stream_whose_network_is_not_the_limit_has_an_open_window() {
        assert_eq!(window_bytes(&signal(1.0, None)), OPEN_WINDOW_BYTES);
    }

    #[test]
    fn a_closed_window_opens_twofold_in_a_quarter_second() {
        let mut window = Window::default();
        let at = Duration::from_millis;
        assert_eq!(window.open_to(at(1000), &signal(1.0, Some(4_000.0))), 1_200);
        assert_eq!(window.open_to(at(1000), &signal(1.0, None)), 1_200);
        assert_eq!(window.open_to(at(1250), &signal(1.0, None)), 2_400);
        assert_eq!(window.open_to(at(9000), &signal(1.0, None)), OPEN_WINDOW_BYTES);
    }

    proptest! {
        #[test]
        fn the_window_is_monotone_in_health_and_rate(
            (low, high) in (0.0..=1.0f64, 0.0..=1.0f64).prop_map(|(a, b)| (a.min(b), a.max(b))),
            (slow, fast) in (0.0..1e7f64, 0.0..1e7f64).prop_map(|(a, b)| (a.min(b), a.max(b))),
        ) {
            prop_assert!(window_bytes(&signal(low, Some(slow))) <= window_bytes(&signal(high, Some(slow))));
            prop_assert!(window_bytes(&signal(low, None)) <= window_bytes(&signal(high, None)));
            prop_assert!(window_bytes(&signal(low, Some(slow))) <= window_bytes(&signal(low, Some(fast))));
        }
    }
}
