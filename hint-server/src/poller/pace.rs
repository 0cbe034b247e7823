//! Which looks come next, by what the last ones cost: a few connections are all looked at in every round; of many, the idle ones are looked
//! at now and then and the busy ones in turn, so that measuring stays under a tenth of one processor.

use std::time::Duration;

use super::ACTIVE_INTERVAL;

/// Share of the time that whole rounds may take.
const WHOLE_SHARE: f64 = 0.05;
/// Share of the time that the rounds between may take.
const SLICE_SHARE: f64 = 0.03;
/// A whole round comes at least this often, whatever it costs: a score takes looks further apart than a second for unconnected.
const WHOLE_AT_LEAST: Duration = Duration::from_secs(1);
/// Looks per slice, whatever they cost.
const LEAST_SLICE: usize = 16;
/// Weight of the latest round in what a round is expected to cost.
const WEIGHT: f64 = 0.3;

/// What to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Round {
    /// Everything.
    Whole,
    /// At most so many of the connections on which something happens, in turn.
    Slice(usize),
}

#[derive(Debug, Default)]
pub(super) struct Pace {
    last_whole: Option<Duration>,
    /// Seconds of processor time, averaged.
    whole_cost: f64,
    /// Of one look at a single connection.
    look_cost: f64,
}

impl Pace {
    pub(super) fn next(&self, at: Duration) -> Round {
        let Some(last) = self.last_whole else { return Round::Whole };
        let rest = Duration::from_secs_f64(self.whole_cost / WHOLE_SHARE).min(WHOLE_AT_LEAST);
        // Timers are whole milliseconds.
        if rest <= ACTIVE_INTERVAL || at.saturating_sub(last) + Duration::from_millis(1) >= rest {
            return Round::Whole;
        }
        let affordable = ACTIVE_INTERVAL.as_secs_f64() * SLICE_SHARE / self.look_cost.max(1e-7);
        Round::Slice((affordable as usize).max(LEAST_SLICE))
    }

    /// A whole round that began at `at` took `cost`.
    pub(super) fn whole(&mut self, at: Duration, cost: Duration) {
        let cost = cost.as_secs_f64();
        self.whole_cost = if self.last_whole.is_none() { cost } else { self.whole_cost + (cost - self.whole_cost) * WEIGHT };
        self.last_whole = Some(at);
    }

    /// `looks` single looks took `cost`.
    pub(super) fn slice(&mut self, looks: usize, cost: Duration) {
        if looks > 0 {
            let cost = cost.as_secs_f64() / looks as f64;
            self.look_cost = if self.look_cost == 0.0 { cost } else { self.look_cost + (cost - self.look_cost) * WEIGHT };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Runs for ten seconds; what each kind costs is given. Returns processor time spent, whole rounds, looks in slices.
    fn run(whole: Duration, look: Duration, hot: usize) -> (Duration, u32, usize) {
        let (mut pace, mut spent, mut wholes, mut looks) = (Pace::default(), Duration::ZERO, 0, 0);
        let mut at = Duration::ZERO;
        while at < Duration::from_secs(10) {
            let cost = match pace.next(at) {
                Round::Whole => {
                    pace.whole(at, whole);
                    wholes += 1;
                    whole
                }
                Round::Slice(most) => {
                    let count = most.min(hot);
                    pace.slice(count, look * count as u32);
                    looks += count;
                    look * count as u32
                }
            };
            spent += cost;
            at += ACTIVE_INTERVAL.max(cost);
        }
        (spent, wholes, looks)
    }

    #[test]
    fn a_small_host_is_looked_at_as_a_whole_every_time() {
        assert_eq!(run(ms(2), Duration::from_micros(3), 300), (ms(400), 200, 0));
    }

    #[test]
    fn a_large_host_costs_less_than_a_tenth_of_a_processor() {
        let (spent, wholes, looks) = run(ms(40), Duration::from_micros(3), 1000);
        assert!(spent < ms(900), "{spent:?}");
        assert!((10..=15).contains(&wholes), "{wholes}");
        assert!(looks > 180 * 450, "of a thousand busy ones half are looked at in every round: {looks}");
        let (spent, _, _) = run(ms(40), Duration::from_micros(3), 20_000);
        assert!(spent < ms(900), "{spent:?}");
    }

    #[test]
    fn every_connection_is_seen_once_a_second_whatever_it_costs() {
        let (_, wholes, _) = run(ms(200), Duration::from_micros(30), 100_000);
        assert!(wholes >= 9, "{wholes}");
    }
}
