//! The last minute of one connection, in as many points as a narrow column has room for. Plain state: time is passed in, as the time since any
//! start.

use std::time::Duration;

pub const POINTS: usize = 8;
const PERIOD: Duration = Duration::from_millis(60_000 / POINTS as u64);

/// A ring of points; the newest is still growing.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// Each at its number modulo their count.
    points: [Option<Point>; POINTS],
    newest: u64,
}

#[derive(Clone, Copy, Debug)]
struct Point {
    lowest_health: f64,
    rates: f64,
    looks: u32,
}

impl Trace {
    /// Adds a look; `rate` in any unit.
    pub fn add(&mut self, now: Duration, health: f64, rate: f64) {
        let number = number(now);
        if number > self.newest {
            for passed in (self.newest + 1..=number).take(POINTS) {
                self.points[slot(passed)] = None;
            }
            // A silence longer than the ring leaves nothing of it.
            if number - self.newest >= POINTS as u64 {
                self.points = [None; POINTS];
            }
            self.newest = number;
        }
        let point = self.points[slot(self.newest)].get_or_insert(Point { lowest_health: health, rates: 0.0, looks: 0 });
        point.lowest_health = point.lowest_health.min(health);
        point.rates += rate;
        point.looks += 1;
    }

    /// The lowest of each part of the minute before `now`, oldest first; `None` where there was no look.
    pub fn health(&self, now: Duration) -> [Option<f64>; POINTS] {
        self.each(now, |point| point.lowest_health)
    }

    /// The mean of each part.
    pub fn rate(&self, now: Duration) -> [Option<f64>; POINTS] {
        self.each(now, |point| point.rates / f64::from(point.looks))
    }

    fn each(&self, now: Duration, value: impl Fn(&Point) -> f64) -> [Option<f64>; POINTS] {
        let last = number(now).max(self.newest);
        std::array::from_fn(|i| {
            let number = (last + 1 + i as u64).checked_sub(POINTS as u64)?;
            let kept = number <= self.newest && self.newest - number < POINTS as u64;
            self.points[slot(number)].as_ref().filter(|_| kept).map(&value)
        })
    }
}

fn number(now: Duration) -> u64 {
    (now.as_millis() / PERIOD.as_millis()) as u64
}

fn slot(number: u64) -> usize {
    (number % POINTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_minute_moves_through_and_keeps_the_lowest_health() {
        let mut trace = Trace::default();
        for (seconds, health, rate) in [(1.0, 1.0, 10.0), (2.0, 0.4, 30.0), (8.0, 0.9, 8.0), (59.0, 0.7, 7.0)] {
            trace.add(at(seconds), health, rate);
        }
        let empty = [None; 5];
        assert_eq!(trace.health(at(59.0)), [&[Some(0.4), Some(0.9)][..], &empty, &[Some(0.7)]].concat()[..]);
        assert_eq!(trace.rate(at(59.0))[..2], [Some(20.0), Some(8.0)]);
        assert_eq!(trace.health(at(68.0))[..1], [None], "the first points have left");
        assert_eq!(trace.health(at(68.0))[5], Some(0.7));
        assert_eq!(trace.health(at(900.0)), [None; POINTS]);
        trace.add(at(900.0), 1.0, 1.0);
        assert_eq!(trace.health(at(900.0)), [&[None; 7][..], &[Some(1.0)]].concat()[..]);
    }

    proptest! {
        #[test]
        fn only_looks_of_the_last_minute_count(gaps in proptest::collection::vec((0.0..40.0f64, 0.0..=1.0f64), 1..60)) {
            let (mut trace, mut looks, mut now) = (Trace::default(), Vec::new(), 0.0);
            for (gap, health) in gaps {
                now += gap;
                trace.add(at(now), health, health);
                looks.push((now, health));
                let lowest = trace.health(at(now)).into_iter().flatten().fold(1.0, f64::min);
                let within = |seconds: f64| looks.iter().filter(|look| look.0 > now - seconds).map(|look| look.1).fold(1.0, f64::min);
                // The oldest part of the minute may be as short as nothing.
                prop_assert!(within(60.0) <= lowest && lowest <= within(52.4), "{lowest}");
            }
        }
    }
}
