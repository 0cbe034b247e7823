//! Additive increase, multiplicative decrease: a stream's rate rises by a step while little is queued and falls by a factor when much is.
//!
//! What is queued is measured in seconds: undelivered bytes over the delivery rate, the empty path's round trip aside.

use std::time::Duration;

use super::{
    TARGET_QUEUE,
    law::{Credit, Law, delivery_rate, few_chunks, min_rtt, shape},
    token_bucket::{Bucket, OPEN_RATE},
};
use crate::scheduler::StreamSignal;

/// The rate moves once in this time, or in a round trip where that is longer: earlier no effect of the last move can be seen.
const INTERVAL: Duration = Duration::from_millis(100);
/// What the rate gains in an interval, in chunks/s.
const INCREASE_CHUNKS_PER_S: f64 = 2.0;
/// What is left of the rate after an interval with too much queued.
const DECREASE: f64 = 0.7;

#[derive(Clone, Debug)]
pub(super) struct Aimd {
    bucket: Bucket,
    /// Bytes/s; infinite until too much has been queued for once.
    rate: f64,
    moved_at: Duration,
}

impl Default for Aimd {
    fn default() -> Self {
        Self { bucket: Bucket::default(), rate: f64::INFINITY, moved_at: Duration::ZERO }
    }
}

impl Aimd {
    fn adapt(&mut self, now: Duration, signal: &StreamSignal) {
        let interval = INTERVAL.max(min_rtt(signal));
        let elapsed = now.saturating_sub(self.moved_at);
        if elapsed < interval {
            return;
        }
        self.moved_at = now;
        let delivered = delivery_rate(signal);
        let rate = match delivered.filter(|&rate| queued_seconds(signal, rate) > TARGET_QUEUE.as_secs_f64() * shape(signal.health)) {
            // A rate far above what is delivered was never tried out: the fall starts from what the link carries.
            Some(delivered) => self.rate.min(delivered) * DECREASE,
            None => {
                let intervals = (elapsed.as_secs_f64() / interval.as_secs_f64()).min(10.0);
                self.rate + intervals * INCREASE_CHUNKS_PER_S * f64::from(signal.chunk_bytes)
            }
        };
        self.rate = if rate < OPEN_RATE { rate.max(few_chunks(signal) as f64) } else { f64::INFINITY };
    }
}

impl Law for Aimd {
    fn credit(&mut self, now: Duration, signal: &StreamSignal) -> Credit {
        self.adapt(now, signal);
        self.bucket.fill(now, self.rate, signal);
        self.bucket.credit(self.rate, signal)
    }

    fn spend(&mut self, bytes: u64) {
        self.bucket.spend(bytes);
    }
}

/// How long what is undelivered, beyond what the empty path holds in flight, takes to deliver.
fn queued_seconds(signal: &StreamSignal, delivered_bytes_per_s: f64) -> f64 {
    signal.undelivered_bytes as f64 / delivered_bytes_per_s.max(1.0) - min_rtt(signal).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(undelivered_bytes: u64) -> StreamSignal {
        StreamSignal {
            health: 1.0,
            undelivered_bytes,
            delivery_rate_bytes_per_s: Some(10_000.0),
            min_rtt_us: Some(50_000),
            chunk_bytes: 200,
        }
    }

    #[test]
    fn the_rate_falls_by_a_factor_and_rises_by_steps() {
        let mut law = Aimd::default();
        let mut look = |ms, undelivered| {
            law.credit(Duration::from_millis(ms), &signal(undelivered));
            law.rate
        };
        assert_eq!(look(1_000, 3_000), f64::INFINITY, "0.3 s less the round trip is queued");
        assert_eq!(look(1_100, 3_001), 7_000.0);
        assert_eq!(look(1_150, 9_000), 7_000.0, "the last move has had no time to tell");
        assert_eq!(look(1_200, 3_001), 4_900.0);
        assert_eq!(look(1_300, 2_000), 5_300.0);
        assert_eq!(look(1_500, 2_000), 6_100.0);
    }

    #[test]
    fn bad_health_lowers_the_target() {
        let rate = |health| {
            let mut law = Aimd::default();
            law.credit(Duration::from_secs(1), &StreamSignal { health, ..signal(2_000) });
            law.rate
        };
        assert_eq!((rate(0.8), rate(0.6)), (f64::INFINITY, 7_000.0));
    }
}
