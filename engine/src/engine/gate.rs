use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::scheduler::FullQueues;

/// Counts requests in before the loop sees them, so that one too many is refused before anybody has answered for it.
///
/// Who submits takes a number; the loop, which alone knows how many may wait, says up to which number there is room, and which tenants and
/// connections have as many waiting for their caps as may wait.
#[derive(Debug)]
pub(super) struct Gate {
    taken: AtomicU64,
    limit: AtomicU64,
    waiting: AtomicU64,
    retry_after_s: AtomicU64,
    full: Mutex<FullQueues>,
}

/// Which queue has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    Engine,
    Tenant,
    Connection,
}

impl Gate {
    /// With room for `room`.
    pub(super) fn new(room: usize) -> Self {
        Self {
            taken: AtomicU64::new(0),
            limit: AtomicU64::new(room as u64),
            waiting: AtomicU64::new(0),
            retry_after_s: AtomicU64::new(1),
            full: Mutex::default(),
        }
    }

    /// Takes the next `count` numbers for a tenant's request by a connection.
    ///
    /// # Errors
    /// Takes none and names the queue where there is no room for all of them.
    pub(super) fn enter(&self, count: usize, tenant: &Option<Arc<str>>, connection: Option<u64>) -> Result<(), Full> {
        {
            let full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
            if full.tenants.contains(tenant) {
                return Err(Full::Tenant);
            }
            if connection.is_some_and(|connection| full.connections.contains(&connection)) {
                return Err(Full::Connection);
            }
        }
        let next = |taken: u64| taken.checked_add(count as u64).filter(|&last| last <= self.limit.load(Relaxed));
        self.taken.fetch_update(Relaxed, Relaxed, next).map(drop).map_err(|_| Full::Engine)
    }

    /// The loop has taken `handled` requests in, `waiting` of them wait, and `room` more may come, but not from those whose queue is full.
    pub(super) fn update(&self, handled: u64, (room, full): (usize, FullQueues), waiting: usize, retry_after: Duration) {
        *self.full.lock().unwrap_or_else(PoisonError::into_inner) = full;
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
        let enter = |count| gate.enter(count, &None, Some(1));
        assert_eq!((enter(2), enter(2)), (Ok(()), Err(Full::Engine)));
        assert_eq!((enter(1), enter(1)), (Ok(()), Err(Full::Engine)));
        gate.update(3, (1, FullQueues::default()), 0, Duration::ZERO);
        assert_eq!(enter(1), Ok(()));
        gate.update(3, (usize::MAX, FullQueues::default()), 5, Duration::from_secs(7));
        assert_eq!(enter(1000), Ok(()));
        assert_eq!((gate.waiting(), gate.retry_after()), (5, Duration::from_secs(7)));
    }

    #[test]
    fn a_full_queue_of_one_owner_is_nobody_elses() {
        let gate = Gate::new(10);
        let full = FullQueues { tenants: [Some("a".into())].into(), connections: [7].into() };
        gate.update(0, (10, full), 0, Duration::ZERO);
        assert_eq!(gate.enter(1, &Some("a".into()), None), Err(Full::Tenant));
        assert_eq!(gate.enter(1, &None, Some(7)), Err(Full::Connection));
        assert_eq!(gate.enter(1, &Some("b".into()), Some(8)), Ok(()));
        gate.update(1, (10, FullQueues::default()), 0, Duration::ZERO);
        assert_eq!(gate.enter(1, &Some("a".into()), Some(7)), Ok(()));
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
