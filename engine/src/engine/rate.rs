use std::time::Duration;

/// Time constant of the average.
const WINDOW_S: f64 = 1.0;

/// Tokens per second, exponentially averaged over about a second of elapsed time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RateMeter {
    began: Option<Duration>,
    last: Duration,
    weighted_tokens: f64,
}

impl RateMeter {
    /// Counts one token and returns the rate; 0 for the first token, since one event has no rate.
    pub(super) fn count(&mut self, now: Duration) -> f64 {
        let Some(began) = self.began else {
            self.began = Some(now);
            self.last = now;
            return 0.0;
        };
        let elapsed = now.saturating_sub(self.last).as_secs_f64();
        self.weighted_tokens = self.weighted_tokens * (-elapsed / WINDOW_S).exp() + 1.0;
        self.last = now;
        // The weights of a window that has not filled yet sum to less than the time constant.
        let age = now.saturating_sub(began).as_secs_f64();
        let weight = WINDOW_S * (1.0 - (-age / WINDOW_S).exp());
        if weight > 0.0 { self.weighted_tokens / weight } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_stream_reads_its_rate_at_once_and_for_ever() {
        let mut meter = RateMeter::default();
        assert_eq!(meter.count(Duration::ZERO), 0.0);
        for i in 1..500 {
            let rate = meter.count(Duration::from_millis(20) * i);
            assert!((45.0..56.0).contains(&rate), "token {i}: {rate}");
        }
    }

    #[test]
    fn a_slower_stream_is_noticed_within_seconds() {
        let mut meter = RateMeter::default();
        for i in 0..100 {
            meter.count(Duration::from_millis(10) * i);
        }
        let mut rate = 0.0;
        for i in 1..=25 {
            rate = meter.count(Duration::from_secs(1) + Duration::from_millis(200) * i);
        }
        assert!((4.0..7.0).contains(&rate), "{rate}");
    }
}
