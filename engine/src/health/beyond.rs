//! How much of a stream's output waits at a gateway, between two words of the gateway's hint server.
//!
//! The word comes when something changed, once a second at least, and is of the whole connection. Since then the stream passed on more and
//! the link carried some; and what others put on the same connection, a download beside it, is not the stream's to wait for.

use std::time::Duration;

/// What was passed on in the interval before this one and since counts as lately.
const INTERVAL: Duration = Duration::from_secs(1);
/// An interval lasts until the link has had time for what was passed on in it, and never longer than this.
const LONGEST_INTERVAL: Duration = Duration::from_secs(10);

/// The hint server's word on a connection whose limit is the network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Reading {
    pub(super) undelivered_bytes: u64,
    /// Bytes/s.
    pub(super) rate: f64,
}

/// One stream's share of what waits. Pure: the time is passed in.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Beyond {
    reading: Option<Reading>,
    /// Of the whole connection, by now.
    waiting_bytes: f64,
    at: Duration,
    /// Passed on to the gateway by then, in all.
    passed_bytes: u64,
    /// The same when the interval before this one began, and when this one did.
    passed_before: [u64; 2],
    interval_began: Duration,
}

impl Beyond {
    /// Bytes that wait at `now`, when the stream has passed `passed_bytes` on to the gateway.
    pub(super) fn bytes(&mut self, now: Duration, reading: Option<Reading>, passed_bytes: u64) -> u64 {
        // An estimate, which may fall back.
        let passed_bytes = passed_bytes.max(self.passed_bytes);
        let rate = reading.map_or(f64::INFINITY, |reading| reading.rate);
        let elapsed = now.saturating_sub(self.at).as_secs_f64();
        self.waiting_bytes = match reading {
            _ if reading != self.reading => reading.map_or(0.0, |reading| reading.undelivered_bytes as f64),
            Some(_) => (self.waiting_bytes + (passed_bytes - self.passed_bytes) as f64 - rate * elapsed).max(0.0),
            None => 0.0,
        };
        (self.reading, self.at, self.passed_bytes) = (reading, now, passed_bytes);
        self.turn(rate);
        (self.waiting_bytes as u64).min(passed_bytes - self.passed_before[0])
    }

    fn turn(&mut self, rate: f64) {
        let lasted = self.at.saturating_sub(self.interval_began);
        let passed = (self.passed_bytes - self.passed_before[1]) as f64;
        if lasted >= INTERVAL && (rate * lasted.as_secs_f64() >= passed || lasted >= LONGEST_INTERVAL) {
            self.passed_before = [self.passed_before[1], self.passed_bytes];
            self.interval_began = self.at;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn reading(undelivered_bytes: u64, rate: f64) -> Option<Reading> {
        Some(Reading { undelivered_bytes, rate })
    }

    #[test]
    fn between_two_readings_what_was_passed_on_is_added_and_what_was_carried_is_not() {
        let mut beyond = Beyond::default();
        assert_eq!(beyond.bytes(ms(5_000), reading(3_000, 4_000.0), 10_000), 3_000);
        assert_eq!(beyond.bytes(ms(5_000), reading(3_000, 4_000.0), 11_000), 4_000);
        assert_eq!(beyond.bytes(ms(5_250), reading(3_000, 4_000.0), 11_000), 3_000);
        assert_eq!(beyond.bytes(ms(5_300), reading(2_000, 4_000.0), 11_500), 2_000, "a new word");
        assert_eq!(beyond.bytes(ms(5_900), reading(2_000, 4_000.0), 11_500), 0);
        assert_eq!(beyond.bytes(ms(5_900), reading(2_000, 4_000.0), 11_900), 400, "the link was idle, not ahead");
        assert_eq!(beyond.bytes(ms(5_950), None, 12_000), 0, "it is no longer the limit");
    }

    #[test]
    fn a_download_beside_it_does_not_stop_a_stream() {
        let (mut beyond, mut passed) = (Beyond::default(), 0);
        for at in (0..20_000).step_by(10) {
            // Other words all the time, of megabytes.
            if beyond.bytes(ms(at), reading(4_000_000 + at, 100_000.0), passed) < 25_000 {
                passed += 110;
            }
        }
        assert!(passed > 200_000, "{passed} bytes");
    }

    #[test]
    fn what_a_stalled_link_holds_is_remembered_for_longer() {
        let mut beyond = Beyond::default();
        assert_eq!(beyond.bytes(ms(0), reading(8_000, 1.0), 9_000), 8_000);
        for at in (0..10_000).step_by(100) {
            assert!(beyond.bytes(ms(at), reading(8_000, 1.0), 9_000) > 7_900, "at {at} ms");
        }
    }

    proptest! {
        #[test]
        fn no_stream_waits_for_more_than_it_passed_on(
            looks in prop::collection::vec((0..3_000u64, prop::option::of((any::<u64>(), 0.0..1e9f64)), 0..1_000_000u64), 1..50),
        ) {
            let (mut beyond, mut now, mut most) = (Beyond::default(), 0, 0);
            for (gap, word, passed) in looks {
                now += gap;
                most = passed.max(most);
                let bytes = beyond.bytes(ms(now), word.and_then(|(bytes, rate)| reading(bytes, rate)), passed);
                prop_assert!(bytes <= most && (word.is_some() || bytes == 0));
            }
        }
    }
}
