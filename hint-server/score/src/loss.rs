//! The loss term: share of retransmitted segments among those of the last two seconds, and a cap after a timeout.
//! Few segments prove little, so the share is taken of at least [`MIN_SEGMENTS`].

use std::time::Duration;

/// Shares up to this one cost nothing.
const TOLERATED: f64 = 0.02;
/// From this share on the term is 0.
const RUINOUS: f64 = 0.10;
const MIN_SEGMENTS: u64 = 50;
const BUCKET: Duration = Duration::from_millis(250);
const BUCKETS: usize = 8;

const RTO_CAP: f64 = 0.5;
const RTO_CAP_LASTS: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    segments: u64,
    retransmits: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Loss {
    buckets: [Bucket; BUCKETS],
    /// Number of the newest bucket since the clock's origin.
    newest: u64,
    capped_until: Duration,
}

impl Loss {
    /// Takes in what happened since the last look: segments sent (retransmissions included), of them retransmitted, timeouts.
    pub(crate) fn observe(&mut self, at: Duration, segments: u64, retransmits: u64, rtos: u64) {
        self.advance(at);
        let bucket = &mut self.buckets[(self.newest % BUCKETS as u64) as usize];
        bucket.segments = bucket.segments.saturating_add(segments);
        bucket.retransmits = bucket.retransmits.saturating_add(retransmits);
        if rtos > 0 {
            self.capped_until = at + RTO_CAP_LASTS;
        }
    }

    fn advance(&mut self, at: Duration) {
        let bucket = (at.as_millis() / BUCKET.as_millis()) as u64;
        if bucket > self.newest.saturating_add(BUCKETS as u64) {
            self.buckets = Default::default();
        } else {
            for number in self.newest + 1..=bucket {
                self.buckets[(number % BUCKETS as u64) as usize] = Bucket::default();
            }
        }
        self.newest = self.newest.max(bucket);
    }

    pub(crate) fn term(&self, at: Duration) -> f64 {
        let segments = self.buckets.iter().fold(0u64, |sum, b| sum.saturating_add(b.segments));
        let retransmits = self.buckets.iter().fold(0u64, |sum, b| sum.saturating_add(b.retransmits));
        let share = retransmits as f64 / segments.max(MIN_SEGMENTS) as f64;
        let term = ((RUINOUS - share) / (RUINOUS - TOLERATED)).clamp(0.0, 1.0);
        if at < self.capped_until { term.min(RTO_CAP) } else { term }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn term_of(segments: u64, retransmits: u64) -> f64 {
        let mut loss = Loss::default();
        loss.observe(ms(1000), segments, retransmits, 0);
        loss.term(ms(1000))
    }

    #[test]
    fn is_linear_between_two_and_ten_percent() {
        assert_eq!(term_of(1000, 0), 1.0);
        assert_eq!(term_of(1000, 20), 1.0);
        assert!((term_of(1000, 60) - 0.5).abs() < 1e-9);
        assert_eq!(term_of(1000, 100), 0.0);
        assert_eq!(term_of(1000, 900), 0.0);
    }

    #[test]
    fn one_lost_segment_of_three_is_not_a_third() {
        assert_eq!(term_of(3, 1), 1.0);
    }

    #[test]
    fn forgets_after_two_seconds() {
        let mut loss = Loss::default();
        loss.observe(ms(0), 100, 50, 0);
        loss.observe(ms(1700), 0, 0, 0);
        assert_eq!(loss.term(ms(1700)), 0.0);
        loss.observe(ms(2000), 0, 0, 0);
        assert_eq!(loss.term(ms(2000)), 1.0);
    }

    #[test]
    fn a_timeout_caps_for_a_second() {
        let mut loss = Loss::default();
        loss.observe(ms(100), 10, 1, 1);
        assert_eq!(loss.term(ms(1099)), 0.5);
        assert_eq!(loss.term(ms(1100)), 1.0);
    }

    proptest! {
        #[test]
        fn any_counts_at_any_time_give_a_number_in_range(
            looks in vec((any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()), 1..40), at in any::<u64>(),
        ) {
            let mut loss = Loss::default();
            for (at, segments, retransmits, rtos) in looks {
                loss.observe(ms(at), segments, retransmits, rtos);
                prop_assert!((0.0..=1.0).contains(&loss.term(ms(at))));
            }
            prop_assert!((0.0..=1.0).contains(&loss.term(ms(at))));
        }

        #[test]
        fn more_sent_again_or_timed_out_is_never_better_and_more_delivered_never_worse(
            looks in vec((0u64..400, 0u64..500, 0u64..50, 0u64..2), 1..40), which in any::<prop::sample::Index>(),
            (segments, retransmits, rtos) in (0u64..500, 0u64..50, 0u64..2),
        ) {
            let (mut plain, mut lossy, mut busier, mut now) = (Loss::default(), Loss::default(), Loss::default(), Duration::ZERO);
            let which = which.index(looks.len());
            for (index, (gap, s, r, t)) in looks.into_iter().enumerate() {
                let here = u64::from(index == which);
                now += ms(gap);
                plain.observe(now, s, r, t);
                lossy.observe(now, s, r + here * retransmits, t + here * rtos);
                busier.observe(now, s + here * segments, r, t);
                prop_assert!(lossy.term(now) <= plain.term(now) && plain.term(now) <= busier.term(now));
            }
        }
    }
}
