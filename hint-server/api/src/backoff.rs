//! How long to wait before the next attempt: doubling from 100 ms to 5 s, with jitter so that many readers do not come back at once.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    pub fn reset(&mut self) {
        self.next = FIRST;
    }

    /// The wait before the next attempt: between the half and the whole of the current step.
    pub fn next_wait(&mut self) -> Duration {
        // The standard library's per-map seed is random enough for jitter.
        let random = RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64;
        self.wait(random)
    }

    fn wait(&mut self, random: f64) -> Duration {
        let wait = self.next.mul_f64(0.5 + random * 0.5);
        self.next = (self.next * 2).min(LONGEST);
        wait.max(FIRST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_within_its_bounds_and_starts_over() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..8).map(|_| backoff.wait(1.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff.wait(0.0).as_millis(), 2500);
        backoff.reset();
        assert!((100..=100).contains(&backoff.next_wait().as_millis()));
    }
}
