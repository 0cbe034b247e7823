//! A token bucket: output at the rate that the link is measured to deliver, with a burst.
//!
//! The bucket also serves `aimd`, which fills it at a rate of its own.

use std::time::Duration;

use super::{
    LOOK_AGAIN_AFTER, OPEN_WINDOW_BYTES, TARGET_QUEUE,
    law::{Credit, Law, delivery_rate, few_chunks, shape},
};
use crate::scheduler::StreamSignal;

/// How long a full bucket lasts at its rate, where that is more than a few chunks.
const BURST: Duration = Duration::from_millis(100);
/// A bucket filled faster than this limits nothing that the open window does not: it counts as open.
pub(super) const OPEN_RATE: f64 = OPEN_WINDOW_BYTES as f64 / 0.25;

/// Credit in bytes that fills at a rate.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    /// Below zero after a draft that was longer than the credit.
    level: f64,
    filled_at: Duration,
}

impl Default for Bucket {
    fn default() -> Self {
        Self { level: f64::INFINITY, filled_at: Duration::ZERO }
    }
}

impl Bucket {
    /// Seconds since the last call, which fill the bucket at `bytes_per_s` (infinite: it is always full).
    pub(super) fn fill(&mut self, now: Duration, bytes_per_s: f64, signal: &StreamSignal) {
        let elapsed = now.saturating_sub(self.filled_at).as_secs_f64();
        let burst = (bytes_per_s * BURST.as_secs_f64()).max(few_chunks(signal) as f64);
        // Infinity times zero is not a number, and not a burst.
        let filled = if bytes_per_s.is_finite() { self.level + bytes_per_s * elapsed } else { f64::INFINITY };
        self.level = filled.min(burst);
        self.filled_at = self.filled_at.max(now);
    }

    /// What is in it, as long as no more than the open window is undelivered.
    pub(super) fn credit(&self, bytes_per_s: f64, signal: &StreamSignal) -> Credit {
        let room = OPEN_WINDOW_BYTES.max(few_chunks(signal)).saturating_sub(signal.undelivered_bytes);
        let wait = if self.level < 1.0 { (1.0 - self.level) / bytes_per_s } else { 0.0 };
        let wait = Duration::try_from_secs_f64(wait).unwrap_or(TARGET_QUEUE);
        Credit { bytes: room.min(self.level.max(0.0) as u64), look_again_after: wait.clamp(LOOK_AGAIN_AFTER, TARGET_QUEUE) }
    }

    pub(super) fn spend(&mut self, bytes: u64) {
        self.level -= bytes as f64;
    }
}

#[derive(Clone, Debug)]
pub(super) struct TokenBucket {
    bucket: Bucket,
    /// Bytes/s; infinite until the network has been the limit for once. Doubles in [`TARGET_QUEUE`] while the network is not.
    rate: f64,
    looked_at: Duration,
}

impl Default for TokenBucket {
    fn default() -> Self {
        Self { bucket: Bucket::default(), rate: f64::INFINITY, looked_at: Duration::ZERO }
    }
}

impl Law for TokenBucket {
    fn credit(&mut self, now: Duration, signal: &StreamSignal) -> Credit {
        let elapsed = now.saturating_sub(self.looked_at).as_secs_f64() / TARGET_QUEUE.as_secs_f64();
        self.looked_at = self.looked_at.max(now);
        let rate = match delivery_rate(signal) {
            Some(rate) => rate * drain(signal.health),
            None => self.rate * elapsed.exp2(),
        };
        // A few chunks a second at least: without any output no better rate would ever be measured.
        self.rate = if rate < OPEN_RATE { rate.max(few_chunks(signal) as f64) } else { f64::INFINITY };
        self.bucket.fill(now, self.rate, signal);
        self.bucket.credit(self.rate, signal)
    }

    fn spend(&mut self, bytes: u64) {
        self.bucket.spend(bytes);
    }
}

/// Share of the delivery rate to fill at, so that what is queued beyond the target drains: a half at worst.
fn drain(health: f64) -> f64 {
    0.5 + 0.5 * shape(health)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(rate: Option<f64>) -> StreamSignal {
        StreamSignal { health: 1.0, undelivered_bytes: 0, delivery_rate_bytes_per_s: rate, min_rtt_us: Some(20_000), chunk_bytes: 200 }
    }

    /// Chunks sent from `from` to `to` (milliseconds), as fast as there is credit.
    fn send(law: &mut TokenBucket, from: u64, to: u64, rate: Option<f64>) -> u64 {
        let mut sent = 0;
        for ms in from..to {
            while law.credit(Duration::from_millis(ms), &signal(rate)).bytes > 0 {
                law.spend(200);
                sent += 1;
            }
        }
        sent
    }

    #[test]
    fn output_keeps_the_delivery_rate() {
        let mut law = TokenBucket::default();
        let burst = send(&mut law, 1_000, 1_001, Some(10_000.0));
        assert_eq!(burst, 5, "a tenth of a second's worth");
        assert_eq!(send(&mut law, 1_001, 3_001, Some(10_000.0)), 100);
    }

    #[test]
    fn the_rate_doubles_while_the_network_is_not_the_limit() {
        let mut law = TokenBucket::default();
        send(&mut law, 1_000, 1_001, Some(10_000.0));
        let first = send(&mut law, 1_001, 1_251, None);
        let second = send(&mut law, 1_251, 1_501, None);
        assert!((17..=19).contains(&first) && (35..=37).contains(&second), "{first}, {second}");
        law.credit(Duration::from_secs(9), &signal(None));
        assert_eq!(law.rate, f64::INFINITY);
    }

    #[test]
    fn who_waits_is_looked_at_when_there_will_be_credit() {
        let mut law = TokenBucket::default();
        send(&mut law, 1_000, 1_001, Some(10_000.0));
        let credit = law.credit(Duration::from_millis(1_000), &signal(Some(10_000.0)));
        assert_eq!(credit.bytes, 0);
        let at = Duration::from_millis(1_000) + credit.look_again_after + Duration::from_micros(1);
        assert!(law.credit(at, &signal(Some(10_000.0))).bytes > 0);
    }
}
