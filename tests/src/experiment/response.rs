//! How streams respond when their link changes: whether their rate overshoots, and how soon it settles.
//!
//! The rate of a group's streams after each change is averaged over all changes of the same kind (a square wave repeats itself), so that a
//! run's noise does not read as an oscillation.

use super::{Action, Record, Scenario};
use crate::netns::LinkShape;

/// Resolution, seconds.
const BIN: f64 = 0.1;
/// Bins of the moving mean that stands for "the rate": a fifth of a second to each side.
const SMOOTHING: usize = 2;
/// How near the rate is when it has settled, as a fraction of where it settles.
const TOLERANCE: f64 = 0.25;

/// The mean response of one group to one kind of change.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// Whether the link became faster.
    pub opens: bool,
    /// Tokens per second in each [`BIN`] after the change.
    rates: Vec<f64>,
}

/// The responses of all groups whose links change within the window. A change that is followed by another within a second is left out.
pub fn responses(scenario: &Scenario, record: &Record) -> Vec<Response> {
    let mut found = Vec::new();
    for group in 0..scenario.groups.len() {
        let changes = changes(scenario, group);
        for opens in [true, false] {
            let of_kind: Vec<_> = changes.iter().filter(|change| change.opens == opens && change.until - change.from >= 1.0).collect();
            let Some(length) = of_kind.iter().map(|change| change.until - change.from).reduce(f64::min) else { continue };
            let mut rates = vec![0.0; (length / BIN).round() as usize];
            for (index, seat) in record.seats.iter().enumerate().filter(|(_, seat)| seat.group == group) {
                debug_assert_eq!(seat.group, group);
                for change in &of_kind {
                    for (bin, rate) in rates.iter_mut().enumerate() {
                        let from = change.from + bin as f64 * BIN;
                        *rate += record.tokens(index, from, from + BIN) as f64 / BIN / of_kind.len() as f64;
                    }
                }
            }
            found.push(Response { opens, rates });
        }
    }
    found
}

struct Change {
    from: f64,
    until: f64,
    opens: bool,
}

fn changes(scenario: &Scenario, group: usize) -> Vec<Change> {
    let capacity = |link: &LinkShape| link.rate.map_or(f64::INFINITY, |rate| rate as f64) * (1.0 - link.loss);
    let mut now = [capacity(&scenario.groups[group].link), scenario.shared.as_ref().map_or(f64::INFINITY, capacity)];
    let mut changes: Vec<Change> = Vec::new();
    let end = scenario.window.as_secs_f64();
    for event in &scenario.events {
        let (place, next) = match &event.action {
            Action::Shape { group: of, link } if *of == group => (0, capacity(link)),
            Action::ShapeShared { link } => (1, capacity(link)),
            _ => continue,
        };
        let at = event.at.as_secs_f64();
        if next == now[place] || at >= end {
            continue;
        }
        if let Some(last) = changes.last_mut() {
            last.until = at;
        }
        changes.push(Change { from: at, until: end, opens: next > now[place] });
        now[place] = next;
    }
    changes
}

impl Response {
    /// Mean of the second half.
    fn settled(&self) -> f64 {
        let half = &self.rates[self.rates.len() / 2..];
        half.iter().sum::<f64>() / half.len().max(1) as f64
    }

    fn smooth(&self) -> impl Iterator<Item = f64> {
        (0..self.rates.len()).map(|bin| {
            let near = &self.rates[bin.saturating_sub(SMOOTHING)..(bin + SMOOTHING + 1).min(self.rates.len())];
            near.iter().sum::<f64>() / near.len() as f64
        })
    }

    /// The most by which the rate exceeds where it settles, as a fraction, after a link opened; `None` after it closed or where nothing came.
    pub fn overshoot(&self) -> Option<f64> {
        let settled = self.settled();
        (self.opens && settled > 0.0).then(|| (self.smooth().fold(0.0, f64::max) / settled - 1.0).max(0.0))
    }

    /// Seconds after which the rate stays within a quarter of where it settles; all of them where nothing comes.
    pub fn convergence_s(&self) -> f64 {
        let settled = self.settled();
        if settled <= 0.0 {
            return self.rates.len() as f64 * BIN;
        }
        let away = self.smooth().enumerate().filter(|(_, rate)| (rate - settled).abs() > TOLERANCE * settled);
        away.last().map_or(0.0, |(bin, _)| (bin + 1) as f64 * BIN)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::experiment::{Chunk, Event, GroupSpec, Request, Seat};

    /// A link that opens at 5 s of 10, and a stream whose rate at each moment is given.
    fn square(rate: impl Fn(f64) -> f64) -> Vec<Response> {
        let mut scenario = Scenario::new("x", "", Duration::from_secs(10));
        scenario.groups = vec![GroupSpec::new("x", 1, 1, LinkShape::limited(1000))];
        scenario.events = vec![Event { at: Duration::from_secs(5), action: Action::Shape { group: 0, link: LinkShape::free() } }];
        let mut chunks = Vec::new();
        let (mut at, mut owed) = (0.0, 0.0);
        while at < 10.0 {
            owed += rate(at) * 0.001;
            if owed >= 1.0 {
                owed -= 1.0;
                chunks.push(Chunk { at, tokens: 1, bytes: 300, health: 1.0 });
            }
            at += 0.001;
        }
        let seat = Seat { group: 0, link: 0, requests: vec![Request { asked: 0.0, chunks }] };
        responses(&scenario, &Record { seats: vec![seat], ..Record::default() })
    }

    #[test]
    fn a_clean_step_neither_overshoots_nor_lingers() {
        let steps = square(|at| if at < 5.0 { 20.0 } else { 200.0 });
        assert_eq!(steps.len(), 1);
        assert!(steps[0].overshoot().unwrap() < 0.03 && steps[0].convergence_s() <= 0.1, "{steps:?}");
    }

    #[test]
    fn a_burst_after_opening_is_an_overshoot() {
        let steps = square(|at| {
            if at < 5.0 {
                20.0
            } else if at < 6.0 {
                300.0
            } else {
                200.0
            }
        });
        assert!((steps[0].overshoot().unwrap() - 0.5).abs() < 0.05, "{steps:?}");
        assert!((steps[0].convergence_s() - 1.0).abs() <= 0.21, "{steps:?}");
    }

    #[test]
    fn a_stream_that_stops_does_not_settle() {
        let steps = square(|at| if at < 5.0 { 20.0 } else { 0.0 });
        assert_eq!((steps[0].overshoot(), steps[0].convergence_s()), (None, 5.0));
    }

    #[test]
    fn a_slow_rise_takes_its_time_and_does_not_overshoot() {
        let steps = square(|at| if at < 5.0 { 20.0 } else { 20.0 + 180.0 * ((at - 5.0) / 2.0).min(1.0) });
        assert!(steps[0].overshoot().unwrap() < 0.05 && (1.0..2.0).contains(&steps[0].convergence_s()), "{steps:?}");
    }
}
