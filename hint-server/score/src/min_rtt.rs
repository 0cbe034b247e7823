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
    use proptest::{collection::vec, prelude::*};

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

    proptest! {
        #[test]
        fn is_the_least_of_the_last_minute(samples in vec((0u64..20, 0u32..1000, 0u32..1000), 1..60)) {
            let (mut min, mut now, mut all) = (MinRtt::default(), 0, Vec::new());
            for (gap, srtt, kernel) in samples {
                now += gap;
                all.extend([srtt, kernel].into_iter().filter(|&us| us > 0).map(|us| (now, us)));
                let least = min.observe(Duration::from_secs(now), srtt, kernel).map(|min| min.as_micros() as u32);
                let since = |seconds: u64| all.iter().filter(|(at, _)| now - at < seconds).map(|&(_, us)| us).min();
                // Forgotten bucket by bucket: after more than fifty seconds, before a minute is over.
                prop_assert!(least.is_none_or(|least| since(60).is_some_and(|exact| exact <= least)), "{least:?}");
                prop_assert!(since(50).is_none_or(|exact| least.is_some_and(|least| least <= exact)), "{least:?}");
            }
        }

        #[test]
        fn any_clock_and_any_sample_will_do(looks in vec((any::<u64>(), any::<u32>(), any::<u32>()), 1..40)) {
            let mut min = MinRtt::default();
            for (at, srtt, kernel) in looks {
                let least = min.observe(Duration::from_secs(at), srtt, kernel);
                prop_assert!(srtt == 0 || srtt == u32::MAX || least.is_some_and(|least| least <= Duration::from_micros(srtt.into())));
            }
        }

        #[test]
        fn the_slack_grows_with_the_path(min_us in 0u64..10_000_000, more in 0u64..10_000_000) {
            let slack = |us| delay_slack(Duration::from_micros(us));
            prop_assert!(slack(min_us + more) >= slack(min_us) && slack(min_us) >= Duration::from_millis(40));
        }
    }
}
