use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Counts requests in before the loop sees them, so that one too many is refused before anybody has answered for it.
///
/// Who submits takes a number; the loop, which alone knows how many may wait, says up to which number there is room.
#[derive(Debug)]
pub(super) struct Gate {
    taken: AtomicU64,
    limit: AtomicU64,
    waiting: AtomicU64,
    retry_after_s: AtomicU64,
}

impl Gate {
    /// With room for `room`.
    pub(super) fn new(room: usize) -> Self {
        Self { taken: AtomicU64::new(0), limit: AtomicU64::new(room as u64), waiting: AtomicU64::new(0), retry_after_s: AtomicU64::new(1) }
    }

    /// Takes the next `count` numbers, or none and returns false where there is no room for all of them.
    pub(super) fn enter(&self, count: usize) -> bool {
        let next = |taken: u64| taken.checked_add(count as u64).filter(|&last| last <= self.limit.load(Relaxed));
        self.taken.fetch_update(Relaxed, Relaxed, next).is_ok()
    }

    /// The loop has taken `handled` requests in, `waiting` of them wait, and `room` more may come.
    pub(super) fn update(&self, handled: u64, room: usize, waiting: usize, retry_after: Duration) {
        self.limit.store(handled.saturating_add(room as u64), Relaxed);
        self.waiting.store(waiting as u64, Relaxed);
        self.retry_after_s.store(retry_after.as_secs().max(1), Relaxed);
    }

    pub(super) fn waiting(&self) -> u64 {
        self.waiting.load(Relaxed)
    }

    /// When to come again.
    pub(super) fn retry_after(&self) -> Duration {
        Duration::from_secs(self.retry_after_s.load(Relaxed))
    }
}

/// How fast requests have come to their end of late.
#[derive(Debug, Default)]
pub(super) struct EndRate {
    ends: VecDeque<Duration>,
}

/// Requests that the rate is taken over.
const WINDOW: usize = 32;

/// Nobody is sent away for longer: by then things have changed.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

impl EndRate {
    pub(super) fn count(&mut self, now: Duration) {
        if self.ends.len() == WINDOW {
            self.ends.pop_front();
        }
        self.ends.push_back(now);
    }

    /// How long the queue of `waiting` takes to be served at the rate of late; a second where there is none yet.
    pub(super) fn time_to_serve(&self, waiting: usize, now: Duration) -> Duration {
        let seconds = match self.ends.front() {
            Some(&first) => now.saturating_sub(first).as_secs_f64() / self.ends.len() as f64 * waiting as f64,
            None => 1.0,
        };
        Duration::try_from_secs_f64(seconds.ceil().max(1.0)).unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_taken_all_or_none_up_to_the_limit() {
        let gate = Gate::new(3);
        assert!(gate.enter(2));
        assert!(!gate.enter(2));
        assert!(gate.enter(1));
        assert!(!gate.enter(1));
        gate.update(3, 1, 0, Duration::ZERO);
        assert!(gate.enter(1));
        gate.update(3, usize::MAX, 5, Duration::from_secs(7));
        assert!(gate.enter(1000));
        assert_eq!((gate.waiting(), gate.retry_after()), (5, Duration::from_secs(7)));
    }

    #[test]
    fn a_refused_client_comes_back_when_the_queue_has_been_served() {
        let mut rate = EndRate::default();
        let at = Duration::from_secs;
        assert_eq!(rate.time_to_serve(100, at(5)), at(1));
        (0..64).for_each(|i| rate.count(at(i)));
        assert_eq!(rate.time_to_serve(20, at(64)), at(20), "one a second");
        assert_eq!(rate.time_to_serve(0, at(64)), at(1));
        assert_eq!(rate.time_to_serve(10_000, at(64)), LONGEST_WAIT);
        assert_eq!(rate.time_to_serve(32, at(96)), at(64), "nothing has ended for a while");
    }
}
