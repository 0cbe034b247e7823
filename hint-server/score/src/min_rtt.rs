//! The round trip of the empty path: a minimum over a window of our own beside the kernel's.
//! The kernel forgets its minimum after `tcp_min_rtt_wlen` (300 s by default, an operator may set less); ours outlives that by a minute.

use std::time::Duration;

const BUCKET: Duration = Duration::from_secs(10);
const BUCKETS: usize = 6;

/// What may be added to a round trip before it reads as congestion: a quarter of the minimum, at least one delayed ACK (40 ms).
pub fn delay_slack(min_rtt: Duration) -> Duration {
    (min_rtt / 4).max(Duration::from_millis(40))
}

/// Minimum over the last minute, in buckets of ten seconds.
#[derive(Clone, Debug)]
pub(crate) struct MinRtt {
    buckets: [u32; BUCKETS],
    /// Number of the newest bucket since the clock's origin.
    newest: u64,
}

impl Default for MinRtt {
    fn default() -> Self {
        Self { buckets: [u32::MAX; BUCKETS], newest: 0 }
    }
}

impl MinRtt {
    /// Takes in one look (either value 0 where not measured) and returns the minimum, or `None` before the first round trip.
    pub(crate) fn observe(&mut self, at: Duration, srtt_us: u32, kernel_min_us: u32) -> Option<Duration> {
        let bucket = at.as_secs() / BUCKET.as_secs();
        for number in self.newest.saturating_add(1)..=bucket.min(self.newest.saturating_add(BUCKETS as u64)) {
            self.buckets[(number % BUCKETS as u64) as usize] = u32::MAX;
        }
        if bucket > self.newest + BUCKETS as u64 {
            self.buckets = [u32::MAX; BUCKETS];
        }
        self.newest = self.newest.max(bucket);
        let slot = &mut self.buckets[(self.newest % BUCKETS as u64) as usize];
        for sample in [srtt_us, kernel_min_us] {
            if sample > 0 {
                *slot = (*slot).min(sample);
            }
        }
        let least = self.buckets.iter().copied().min().filter(|&us| us < u32::MAX)?;
        Some(Duration::from_micros(least.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outlives_the_kernels_minimum_by_a_minute() {
        let mut min = MinRtt::default();
        assert_eq!(min.observe(Duration::ZERO, 0, 0), None);
        assert_eq!(min.observe(Duration::from_secs(1), 30_000, 20_000), Some(Duration::from_millis(20)));
        assert_eq!(min.observe(Duration::from_secs(50), 90_000, 90_000), Some(Duration::from_millis(20)));
        assert_eq!(min.observe(Duration::from_secs(61), 90_000, 90_000), Some(Duration::from_millis(90)));
        assert_eq!(min.observe(Duration::from_secs(100_000), 0, 95_000), Some(Duration::from_millis(95)));
    }

    #[test]
    fn a_clock_that_steps_back_is_harmless() {
        let mut min = MinRtt::default();
        min.observe(Duration::from_secs(500), 1000, 1000);
        assert_eq!(min.observe(Duration::from_secs(1), 2000, 0), Some(Duration::from_millis(1)));
    }
}
