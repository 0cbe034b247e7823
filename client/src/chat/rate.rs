//! Rate as received: tokens/s over about the last second, from arrival times alone. A steady stream reads steady (no
//! 48/49 flicker of a counting window), one token every three seconds reads 0.3, and a stalled stream sinks towards 0.

use std::collections::VecDeque;
use std::time::Duration;

const WINDOW: Duration = Duration::from_secs(1);
/// Below this the arrivals so far say nothing about a rate.
pub const SHORTEST: Duration = Duration::from_millis(50);

/// Times are since any common start, and never go back.
#[derive(Debug, Default)]
pub struct RateMeter {
    /// Arrivals within the window, and before them the one that anchors it.
    arrivals: VecDeque<(Duration, u64)>,
}

impl RateMeter {
    pub fn record(&mut self, at: Duration, tokens: u64) {
        if tokens == 0 {
            return;
        }
        match self.arrivals.back_mut() {
            Some((last, count)) if *last == at => *count += tokens,
            _ => self.arrivals.push_back((at, tokens)),
        }
        let anchor = self.arrivals.iter().rposition(|(t, _)| *t + WINDOW <= at);
        self.arrivals.drain(..anchor.unwrap_or(0));
    }

    /// Tokens after the anchor over the time that they took; once the next token is overdue, no more than if it came now.
    /// None while too little has arrived to tell.
    pub fn rate(&self, now: Duration) -> Option<f64> {
        let anchor = self.arrivals.iter().rposition(|(t, _)| *t + WINDOW <= now).unwrap_or(0);
        let (first, _) = *self.arrivals.get(anchor)?;
        let (last, burst) = *self.arrivals.back()?;
        let tokens: u64 = self.arrivals.range(anchor + 1..).map(|(_, tokens)| tokens).sum();
        let silence_bound = |tokens: u64| tokens as f64 / now.saturating_sub(first).as_secs_f64();
        if last - first < SHORTEST {
            // One arrival: after a second of silence that itself is a rate.
            return (now >= last + WINDOW).then(|| silence_bound(tokens + 1));
        }
        let seen = tokens as f64 / (last - first).as_secs_f64();
        // The next arrival is taken to be as large as the last one: servers batch tokens into chunks.
        Some(seen.min(silence_bound(tokens + burst)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn meter(arrivals: impl IntoIterator<Item = (u64, u64)>) -> RateMeter {
        let mut meter = RateMeter::default();
        for (at, tokens) in arrivals {
            meter.record(ms(at), tokens);
        }
        meter
    }

    #[test]
    fn nothing_is_said_before_two_arrivals() {
        assert_eq!(RateMeter::default().rate(ms(5000)), None);
        assert_eq!(meter([(100, 1)]).rate(ms(120)), None);
    }

    #[test]
    fn a_steady_stream_reads_steady_at_every_moment() {
        let mut meter = RateMeter::default();
        for i in 0..500 {
            meter.record(ms(i * 20), 1);
            for offset in [0, 7, 19] {
                if i > 5 {
                    let rate = meter.rate(ms(i * 20 + offset)).unwrap();
                    assert!((rate - 50.0).abs() < 1e-9, "{rate} after {i} tokens");
                }
            }
        }
    }

    #[test]
    fn a_slow_stream_is_not_zero_between_its_tokens() {
        let meter = meter([(0, 1), (3000, 1), (6000, 1)]);
        assert!((meter.rate(ms(6000)).unwrap() - 1.0 / 3.0).abs() < 1e-9);
        assert!((meter.rate(ms(8900)).unwrap() - 1.0 / 3.0).abs() < 0.02);
    }

    #[test]
    fn a_stall_sinks_towards_zero() {
        let meter = meter((0..100).map(|i| (i * 10, 1)));
        let rates: Vec<f64> = [990, 1200, 1500, 2000, 5000, 20_000].map(|t| meter.rate(ms(t)).unwrap()).to_vec();
        assert!(rates.is_sorted_by(|a, b| a > b), "{rates:?}");
        assert!(rates[0] > 99.0 && rates[5] < 0.1, "{rates:?}");
    }

    #[test]
    fn a_change_of_pace_is_seen_within_about_a_second() {
        let meter = meter((0..200).map(|i| (i * 10, 1)).chain((0..11).map(|i| (2000 + i * 100, 1))));
        assert!((meter.rate(ms(3000)).unwrap() - 10.0).abs() < 0.5);
    }

    #[test]
    fn chunks_of_several_tokens_count_all_of_them() {
        let meter = meter((0..10).map(|i| (i * 200, 8)));
        assert!((meter.rate(ms(1800)).unwrap() - 40.0).abs() < 1e-9);
        assert!((meter.rate(ms(1950)).unwrap() - 40.0).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn memory_is_bounded_by_the_window_and_rates_are_finite(gaps in proptest::collection::vec((0u64..3000, 0u64..20), 1..300)) {
            let mut meter = RateMeter::default();
            let mut now = 0;
            for (gap, tokens) in gaps {
                now += gap;
                meter.record(ms(now), tokens);
                if let Some(rate) = meter.rate(ms(now)) {
                    prop_assert!(rate.is_finite() && rate >= 0.0);
                }
                let older = meter.arrivals.iter().filter(|(t, _)| *t + WINDOW <= ms(now)).count();
                prop_assert!(older <= 1 || tokens == 0);
            }
        }
    }
}
