//! A link's queue: bytes leave it as a fluid, at whatever the link's rate is at the moment, and segments are marks in that fluid.
//!
//! First in, first out; what finds it full is dropped.

use std::collections::VecDeque;

use super::time::{Nanos, from_seconds, nanos, seconds};
use crate::netns::LinkShape;

/// A segment on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    pub connection: u32,
    /// Counts up from 0 in each connection.
    pub number: u64,
    pub wire_bytes: u32,
}

#[derive(Clone, Debug)]
pub struct Queue {
    /// Bytes/s; `None` keeps nobody waiting.
    rate: Option<f64>,
    limit_bytes: f64,
    pub loss: f64,
    /// One way.
    pub delay: Nanos,
    /// Bytes that have gone in and come out since the beginning.
    entered: f64,
    left: f64,
    at: Nanos,
    /// Each segment, and how many bytes will have left when it has.
    waiting: VecDeque<(f64, Segment)>,
    /// Counts changes, after which an expected departure is another.
    pub epoch: u32,
}

impl Queue {
    pub fn new(shape: &LinkShape) -> Self {
        let mut queue =
            Self { rate: None, limit_bytes: 0.0, loss: 0.0, delay: 0, entered: 0.0, left: 0.0, at: 0, waiting: VecDeque::new(), epoch: 0 };
        queue.reshape(0, shape);
        queue
    }

    /// Changes the link at `now`; what waits leaves as the new one lets it.
    pub fn reshape(&mut self, now: Nanos, shape: &LinkShape) {
        self.serve(now);
        self.rate = shape.rate.map(|bits| bits as f64 / 8.0);
        self.limit_bytes = shape.queue_bytes as f64;
        self.loss = shape.loss;
        self.delay = nanos(shape.delay);
        self.epoch += 1;
    }

    fn serve(&mut self, now: Nanos) {
        let served = self.rate.map_or(f64::INFINITY, |rate| rate * seconds(now - self.at));
        self.left = (self.left + served).min(self.entered);
        self.at = now;
    }

    /// Bytes that wait.
    pub fn backlog(&mut self, now: Nanos) -> f64 {
        self.serve(now);
        self.entered - self.left
    }

    /// How long a byte that came now would wait.
    pub fn waiting_time(&mut self, now: Nanos) -> Nanos {
        let backlog = self.backlog(now);
        self.rate.map_or(0, |rate| from_seconds(backlog / rate))
    }

    /// Takes a segment in; false where it is full.
    pub fn enter(&mut self, now: Nanos, segment: Segment) -> bool {
        if self.rate.is_some() && self.backlog(now) + f64::from(segment.wire_bytes) > self.limit_bytes {
            return false;
        }
        self.serve(now);
        self.entered += f64::from(segment.wire_bytes);
        self.waiting.push_back((self.entered, segment));
        true
    }

    /// When the first segment will have left, if nothing changes.
    pub fn next_departure(&self) -> Option<Nanos> {
        let (end, _) = self.waiting.front()?;
        Some(self.at + self.rate.map_or(0, |rate| from_seconds((end - self.left).max(0.0) / rate)))
    }

    /// Whether only this one waits, so that its departure is not expected yet.
    pub fn is_first(&self) -> bool {
        self.waiting.len() == 1
    }

    /// The segment whose departure was expected for `now`.
    pub fn depart(&mut self, now: Nanos) -> Option<Segment> {
        self.serve(now);
        let (end, segment) = self.waiting.pop_front()?;
        // A nanosecond's rounding aside, it has left.
        self.left = self.left.max(end);
        Some(segment)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::simulator::time::MILLISECOND;

    fn segment(number: u64, wire_bytes: u32) -> Segment {
        Segment { connection: 0, number, wire_bytes }
    }

    #[test]
    fn what_waits_leaves_at_the_rate_of_the_moment() {
        let mut queue = Queue::new(&LinkShape::limited(8_000));
        assert!(queue.enter(0, segment(0, 1_000)) && queue.enter(0, segment(1, 1_000)));
        assert_eq!(queue.next_departure(), Some(1_000 * MILLISECOND));
        queue.reshape(500 * MILLISECOND, &LinkShape::limited(80_000));
        assert_eq!(queue.next_departure(), Some(550 * MILLISECOND));
        assert_eq!(queue.depart(550 * MILLISECOND), Some(segment(0, 1_000)));
        assert_eq!(queue.next_departure(), Some(650 * MILLISECOND));
        assert_eq!(queue.waiting_time(600 * MILLISECOND), 50 * MILLISECOND);
    }

    #[test]
    fn a_full_queue_takes_nothing() {
        let mut queue = Queue::new(&LinkShape { queue_bytes: 1_500, ..LinkShape::limited(8_000) });
        assert!(queue.enter(0, segment(0, 1_000)));
        assert!(!queue.enter(0, segment(1, 1_000)));
        assert!(queue.enter(500 * MILLISECOND, segment(2, 1_000)));
    }

    proptest! {
        #[test]
        fn no_byte_is_made_or_lost_and_order_is_kept(arrivals in prop::collection::vec((0..50_000_000u64, 60..1515u32), 1..60), rate in 8_000..10_000_000u64) {
            let mut queue = Queue::new(&LinkShape { queue_bytes: u64::MAX, ..LinkShape::limited(rate) });
            let (mut now, mut left, mut last) = (0, Vec::new(), 0);
            for (number, &(gap, bytes)) in arrivals.iter().enumerate() {
                now += gap;
                while let Some(at) = queue.next_departure().filter(|&at| at <= now) {
                    left.push(queue.depart(at).unwrap());
                    last = at;
                }
                prop_assert!(queue.enter(now, segment(number as u64, bytes)));
            }
            while let Some(at) = queue.next_departure() {
                left.push(queue.depart(at).unwrap());
                last = at;
            }
            prop_assert!(left.iter().map(|s| s.number).eq(0..arrivals.len() as u64));
            let total: u64 = arrivals.iter().map(|&(_, bytes)| u64::from(bytes)).sum();
            prop_assert!(seconds(last) >= total as f64 * 8.0 / rate as f64 * (1.0 - 1e-6));
        }
    }
}
