//! From what was seen of a run to the numbers of `summary.json`.
//!
//! A measure that a scenario does not define, such as the overshoot where no link changes, is absent rather than zero.

use std::collections::BTreeMap;

use super::{Calibration, Load, Measure, Record, Scenario, bound::bound_tokens_per_s, response::responses};

/// The measures of one run.
pub type Measures = BTreeMap<Measure, f64>;

/// Computes all that the scenario defines.
pub fn measure(scenario: &Scenario, calibration: &Calibration, record: &Record) -> Measures {
    let window = scenario.window.as_secs_f64();
    let inside = |at: f64| (0.0..window).contains(&at);
    let seats: Vec<usize> = (0..record.seats.len()).collect();
    let continuous = |seat: &usize| !matches!(scenario.groups[record.seats[*seat].group].load, Load::Arrivals { .. });
    let of_healthy_group = |seat: &usize| scenario.groups[record.seats[*seat].group].healthy;
    let equals = first_not_empty([&|seat| continuous(seat) && of_healthy_group(seat), &continuous], &seats);
    let rate = |seat: &usize| record.tokens(*seat, 0.0, window) as f64 / window;

    let mut measures = Measures::new();
    let effective: f64 = seats.iter().map(rate).sum();
    measures.insert(Measure::EffectiveTokensPerS, effective);
    let bound = bound_tokens_per_s(scenario, calibration);
    measures.insert(Measure::AchievedOverBound, effective / bound);

    let rates: Vec<f64> = equals.iter().map(rate).collect();
    measures.insert(Measure::HealthyTokensPerS, rates.iter().sum::<f64>() / rates.len() as f64);
    measures.insert(Measure::Jain, jain(&rates));

    let mut gaps: Vec<f64> = Vec::new();
    for request in equals.iter().flat_map(|seat| &record.seats[*seat].requests) {
        let pairs = request.chunks.windows(2).filter(|pair| inside(pair[1].at));
        gaps.extend(pairs.map(|pair| (pair[1].at - pair[0].at) * 1000.0));
    }
    insert(&mut measures, Measure::HealthyItlP50Ms, quantile(&mut gaps, 0.5));
    insert(&mut measures, Measure::HealthyItlP99Ms, quantile(&mut gaps, 0.99));

    insert(&mut measures, Measure::TtftP99Ms, quantile(&mut times_to_first_token(scenario, record, &equals), 0.99));

    let samples = || record.samples.iter().filter(|sample| inside(sample.at));
    let mut queued: Vec<f64> = samples().flat_map(|s| s.undelivered_bytes.iter().flatten().map(|bytes| *bytes as f64)).collect();
    insert(&mut measures, Measure::QueuedBytesP99, quantile(&mut queued, 0.99));
    let mut held: Vec<f64> = samples().filter_map(|sample| sample.held_bytes.map(|bytes| bytes as f64)).collect();
    insert(&mut measures, Measure::HeldBytesP99, quantile(&mut held, 0.99));

    let trips =
        |healthy: bool| record.round_trips.iter().filter(move |trip| inside(trip.at) && scenario.groups[trip.group].healthy == healthy);
    let mut round_trips: Vec<f64> = trips(false).map(|trip| trip.ms).collect();
    if round_trips.is_empty() {
        round_trips = trips(true).map(|trip| trip.ms).collect();
    }
    insert(&mut measures, Measure::BottleneckRttP99Ms, quantile(&mut round_trips, 0.99));

    let chunks = equals.iter().flat_map(|seat| record.seats[*seat].chunks()).filter(|chunk| inside(chunk.at)).map(|c| f64::from(c.health));
    let hints = samples().flat_map(|sample| equals.iter().filter_map(|seat| sample.health.get(*seat).copied().flatten()));
    insert(&mut measures, Measure::HealthMin, chunks.chain(hints).reduce(f64::min));

    let steps = responses(scenario, record);
    insert(&mut measures, Measure::Overshoot, steps.iter().filter_map(|step| step.overshoot()).reduce(f64::max));
    insert(&mut measures, Measure::ConvergenceS, steps.iter().map(|step| step.convergence_s()).reduce(f64::max));
    measures
}

/// Milliseconds from asking to the first token: of requests that arrive in the window, where the scenario has such; otherwise of all that
/// healthy clients asked. Who has none yet has waited until the window's end at least.
fn times_to_first_token(scenario: &Scenario, record: &Record, equals: &[usize]) -> Vec<f64> {
    let window = scenario.window.as_secs_f64();
    let arrives = |seat: &usize| matches!(scenario.groups[record.seats[*seat].group].load, Load::Arrivals { .. });
    let arriving: Vec<usize> = (0..record.seats.len()).filter(arrives).collect();
    let (seats, from) = if arriving.is_empty() { (equals, f64::NEG_INFINITY) } else { (arriving.as_slice(), 0.0) };
    let requests = seats.iter().flat_map(|seat| &record.seats[*seat].requests).filter(|request| (from..window).contains(&request.asked));
    requests.map(|request| (request.chunks.first().map_or(window, |chunk| chunk.at).max(request.asked) - request.asked) * 1000.0).collect()
}

fn first_not_empty(filters: [&dyn Fn(&usize) -> bool; 2], seats: &[usize]) -> Vec<usize> {
    let found = filters.into_iter().map(|filter| seats.iter().copied().filter(|seat| filter(seat)).collect::<Vec<_>>());
    found.into_iter().find(|seats| !seats.is_empty()).unwrap_or_default()
}

fn insert(measures: &mut Measures, measure: Measure, value: Option<f64>) {
    if let Some(value) = value.filter(|value| value.is_finite()) {
        measures.insert(measure, value);
    }
}

/// The value below which a fraction of all lies, the nearest one above; `None` of nothing.
pub fn quantile(values: &mut [f64], fraction: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let rank = (fraction * values.len() as f64).ceil() as usize;
    values.get(rank.clamp(1, values.len().max(1)) - 1).copied()
}

/// The middle value, or the mean of the two in the middle.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { Some(sorted[middle]) } else { Some((sorted.get(middle)? + sorted[middle - 1]) / 2.0) }
}

/// Jain's index: 1 where all are equal, 1/n where one has everything (Jain, Chiu and Hawe, 1984); 1 of nothing at all.
pub fn jain(rates: &[f64]) -> f64 {
    let (sum, squares) = rates.iter().fold((0.0, 0.0), |(sum, squares), rate| (sum + rate, squares + rate * rate));
    if squares > 0.0 { sum * sum / (rates.len() as f64 * squares) } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        experiment::{Chunk, GroupSpec, Request, RoundTrip, Sample, Seat},
        netns::LinkShape,
    };

    /// One token every `gap` seconds from `from` on, until the window of 10 s is over.
    fn stream(group: usize, from: f64, gap: f64) -> Seat {
        let chunks = (0..).map(|n| from + f64::from(n) * gap).take_while(|at| *at < 11.0).map(|at| Chunk {
            at,
            tokens: 1,
            bytes: 300,
            health: 0.95,
        });
        Seat { group, link: 0, requests: vec![Request { asked: from - 0.05, chunks: chunks.collect() }] }
    }

    fn two_groups() -> (Scenario, Calibration, Record) {
        let calibration = Calibration { throughput: vec![(1, 100.0), (4, 100.0)], payload_bytes_per_token: 300.0 };
        let mut scenario = Scenario::new("x", "", Duration::from_secs(10));
        let slow = LinkShape::limited(calibration.bits_per_second(5.0));
        scenario.groups = vec![GroupSpec::new("good", 1, 2, LinkShape::free()).healthy(), GroupSpec::new("bad", 1, 1, slow)];
        let record = Record {
            seats: vec![stream(0, -1.0, 0.025), stream(0, -1.0, 0.025), stream(1, -1.0, 0.2)],
            samples: vec![Sample {
                at: 1.0,
                undelivered_bytes: vec![Some(100), None, Some(9000)],
                health: vec![Some(0.9), None, Some(0.2)],
                held_bytes: Some(12_000),
            }],
            round_trips: vec![RoundTrip { group: 0, at: 1.0, ms: 0.1 }, RoundTrip { group: 1, at: 1.0, ms: 250.0 }],
            cores: Vec::new(),
        };
        (scenario, calibration, record)
    }

    #[test]
    fn a_run_is_measured_inside_its_window() {
        let (scenario, calibration, record) = two_groups();
        let measures = measure(&scenario, &calibration, &record);
        let near = |measure: Measure, value: f64| {
            let got = measures[&measure];
            assert!((got - value).abs() <= value.abs() * 0.01, "{measure:?} is {got}, not {value}");
        };
        near(Measure::EffectiveTokensPerS, 85.0);
        near(Measure::AchievedOverBound, 0.85);
        near(Measure::HealthyTokensPerS, 40.0);
        near(Measure::HealthyItlP50Ms, 25.0);
        near(Measure::HealthyItlP99Ms, 25.0);
        near(Measure::TtftP99Ms, 50.0);
        near(Measure::QueuedBytesP99, 9000.0);
        near(Measure::HeldBytesP99, 12_000.0);
        near(Measure::BottleneckRttP99Ms, 250.0);
        near(Measure::Jain, 1.0);
        near(Measure::HealthMin, 0.9);
        assert!(!measures.contains_key(&Measure::Overshoot), "no link changes");
    }

    #[test]
    fn requests_that_arrive_are_what_first_tokens_are_measured_of() {
        let (mut scenario, calibration, mut record) = two_groups();
        let load = Load::Arrivals { every: Duration::from_secs(1), max_tokens: 4 };
        scenario.groups.push(GroupSpec::new("new", 1, 1, LinkShape::free()).load(load));
        let asked = |asked: f64, first: Option<f64>| Request {
            asked,
            chunks: first.map(|at| Chunk { at, tokens: 1, bytes: 300, health: 1.0 }).into_iter().collect(),
        };
        record.seats.push(Seat { group: 2, link: 0, requests: vec![asked(-1.0, Some(3.0)), asked(1.0, Some(1.5)), asked(9.0, None)] });
        let ttft = measure(&scenario, &calibration, &record)[&Measure::TtftP99Ms];
        assert!((ttft - 1000.0).abs() < 1e-6, "one asked before the window does not count, one that waits at its end does: {ttft}");
    }

    proptest! {
        #[test]
        fn fairness_is_between_one_nth_and_one(rates in prop::collection::vec(0.0..1e4f64, 1..40)) {
            let index = jain(&rates);
            prop_assert!(index >= 1.0 / rates.len() as f64 - 1e-9 && index <= 1.0 + 1e-9);
        }

        #[test]
        fn quantiles_are_values_in_order(mut values in prop::collection::vec(-1e6..1e6f64, 1..60), low in 0.0..=1.0f64, high in 0.0..=1.0f64) {
            let all = values.clone();
            let (low, high) = (quantile(&mut values, low.min(high)).unwrap(), quantile(&mut values, low.max(high)).unwrap());
            prop_assert!(low <= high && all.contains(&low) && all.contains(&high));
            let middle = median(&all).unwrap();
            prop_assert!(middle >= quantile(&mut values, 0.0).unwrap() && middle <= quantile(&mut values, 1.0).unwrap());
        }
    }
}
