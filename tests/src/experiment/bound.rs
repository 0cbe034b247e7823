//! The water-filling optimum: tokens per second that clients could get if compute were shared max-min fairly, each stream capped by its link.
//!
//! Every stream gets `min(level, cap)`, with the highest level that is feasible. A stream's cap is its share of its link, in tokens: the
//! link's rate without what is lost, over the bytes of a token's chunk and its share of a full packet's headers (coalesced by TCP: the best
//! that a link can do). The level is feasible while the shared bottleneck carries the sum, and while the engine makes it: streams at the
//! level take part in every step, others in as many as they need, so a step carries `sum / level` tokens on average, and `level` steps of
//! that size must fit in a second. What a step costs is measured in the same session ([`Calibration`]).
//!
//! Where links change, the bound is the mean over time; output made before a link opened may then exceed it for a moment.

use std::time::Duration;

use super::{Action, Calibration, Load, Scenario};
use crate::netns::LinkShape;

/// Streams that are alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demand {
    pub streams: usize,
    /// Tokens per second beyond which none of them can get; may be infinite.
    pub cap: f64,
}

/// Tokens per second of each stream of each demand.
///
/// `shared` is what the bottleneck of all of them carries, tokens per second, and `step_seconds` what a step of so many tokens takes.
pub fn water_fill(demands: &[Demand], shared: f64, step_seconds: impl Fn(f64) -> f64) -> Vec<f64> {
    let rates = |level: f64| demands.iter().map(move |demand| level.min(demand.cap));
    let total = |level: f64| rates(level).zip(demands).map(|(rate, demand)| rate * demand.streams as f64).sum::<f64>();
    let feasible = |level: f64| total(level) <= shared && level * step_seconds(total(level) / level) <= 1.0;
    // No stream gets more than a step's token in every step, nor has use for more than its cap.
    let highest = demands.iter().map(|demand| demand.cap).fold(0.0, f64::max).min(step_seconds(1.0).recip());
    if highest <= 0.0 || feasible(highest) {
        return rates(highest.max(0.0)).collect();
    }
    let (mut low, mut high) = (0.0, highest);
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        if feasible(middle) { low = middle } else { high = middle }
    }
    rates(low).collect()
}

/// The bound of a scenario, tokens per second of all streams, mean over its measured window.
pub fn bound_tokens_per_s(scenario: &Scenario, calibration: &Calibration) -> f64 {
    let window = scenario.window;
    let mut links: Vec<LinkShape> = scenario.groups.iter().map(|group| group.link.clone()).collect();
    let mut shared = scenario.shared.clone();
    let (mut tokens, mut from) = (0.0, Duration::ZERO);
    let ends = scenario.events.iter().map(|event| (event.at.min(window), Some(&event.action))).chain([(window, None)]);
    for (at, action) in ends {
        tokens += instant(scenario, &links, shared.as_ref(), calibration) * at.saturating_sub(from).as_secs_f64();
        from = at;
        match action {
            Some(Action::Shape { group, link }) => links[*group] = link.clone(),
            Some(Action::ShapeShared { link }) => shared = Some(link.clone()),
            Some(Action::KillHints | Action::StartHints) | None => {}
        }
    }
    tokens / window.as_secs_f64()
}

fn instant(scenario: &Scenario, links: &[LinkShape], shared: Option<&LinkShape>, calibration: &Calibration) -> f64 {
    let carried = |link: &LinkShape| link.rate.map_or(f64::INFINITY, |rate| calibration.tokens_per_second(rate) * (1.0 - link.loss));
    let demands = scenario.groups.iter().zip(links).map(|(group, link)| {
        let wanted = match group.load {
            Load::Continuous => f64::INFINITY,
            Load::SlowReader { bytes_per_s } => bytes_per_s as f64 / calibration.payload_bytes_per_token,
            Load::Arrivals { every, max_tokens } => max_tokens as f64 / every.as_secs_f64(),
        };
        let streams = match group.load {
            Load::Arrivals { .. } => 1,
            _ => group.streams_per_link,
        };
        Demand { streams: group.links * streams, cap: wanted.min(carried(link) / streams.max(1) as f64) }
    });
    let demands: Vec<_> = demands.collect();
    let rates = water_fill(&demands, shared.map_or(f64::INFINITY, carried), |batch| calibration.step_seconds(batch));
    rates.iter().zip(&demands).map(|(rate, demand)| rate * demand.streams as f64).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::experiment::{Event, GroupSpec};

    /// Affine, as a step is: so much for itself and so much for each token.
    fn step(fixed: f64, per_token: f64) -> impl Fn(f64) -> f64 {
        move |batch| fixed + per_token * batch.max(1.0)
    }

    #[test]
    fn streams_on_free_links_share_the_engine() {
        let rates = water_fill(&[Demand { streams: 8, cap: f64::INFINITY }], f64::INFINITY, step(0.001, 0.001));
        assert!((rates[0] - 1.0 / 0.009).abs() < 1e-6, "{rates:?}");
    }

    #[test]
    fn what_a_slow_link_cannot_use_goes_to_the_others() {
        let demands = [Demand { streams: 16, cap: f64::INFINITY }, Demand { streams: 16, cap: 3.0 }];
        let rates = water_fill(&demands, f64::INFINITY, step(0.0, 0.001));
        assert_eq!(rates[1], 3.0);
        assert!((16.0 * rates[0] - (1000.0 - 48.0)).abs() < 1e-6, "{rates:?}");
    }

    #[test]
    fn a_shared_bottleneck_is_shared_evenly() {
        let demands = [Demand { streams: 2, cap: f64::INFINITY }, Demand { streams: 2, cap: 1.0 }];
        let rates = water_fill(&demands, 12.0, step(0.0, 0.0001));
        assert!((rates[0] - 5.0).abs() < 1e-9 && rates[1] == 1.0, "{rates:?}");
    }

    #[test]
    fn a_link_that_changes_counts_by_time() {
        let calibration = Calibration { throughput: vec![(1, 100.0), (2, 100.0)], payload_bytes_per_token: 1000.0 };
        let link = LinkShape::limited(calibration.bits_per_second(20.0));
        let mut scenario = Scenario::new("x", "", Duration::from_secs(10));
        scenario.groups = vec![GroupSpec::new("x", 1, 1, link)];
        assert!((bound_tokens_per_s(&scenario, &calibration) - 20.0).abs() < 0.1);
        scenario.events = vec![Event { at: Duration::from_secs(5), action: Action::Shape { group: 0, link: LinkShape::free() } }];
        assert!((bound_tokens_per_s(&scenario, &calibration) - 60.0).abs() < 0.1);
    }

    fn demands() -> impl Strategy<Value = Vec<Demand>> {
        let cap = prop_oneof![3 => 0.1..1000.0f64, 1 => Just(f64::INFINITY)];
        prop::collection::vec((1..20usize, cap).prop_map(|(streams, cap)| Demand { streams, cap }), 1..6)
    }

    fn sum(rates: &[f64], demands: &[Demand]) -> f64 {
        rates.iter().zip(demands).map(|(rate, demand)| rate * demand.streams as f64).sum()
    }

    proptest! {
        #[test]
        fn it_is_feasible_and_nobody_could_get_more_without_taking_it_from_somebody_with_less(
            demands in demands(), shared in 1.0..10_000.0f64, fixed in 1e-5..1e-2f64, per_token in 1e-5..1e-2f64,
        ) {
            let step = step(fixed, per_token);
            let rates = water_fill(&demands, shared, &step);
            let level = rates.iter().copied().fold(0.0, f64::max);
            let total = sum(&rates, &demands);
            let busy = level * step(total / level);
            prop_assert!(total <= shared * (1.0 + 1e-9) && busy <= 1.0 + 1e-9);
            prop_assert!(rates.iter().zip(&demands).all(|(rate, demand)| *rate <= demand.cap));
            // Everybody is at the level or at his cap; the level is as high as something lets it be.
            prop_assert!(rates.iter().zip(&demands).all(|(rate, demand)| *rate >= level.min(demand.cap) * (1.0 - 1e-9)));
            let at_caps = rates.iter().zip(&demands).all(|(rate, demand)| *rate == demand.cap);
            prop_assert!(at_caps || total >= shared * (1.0 - 1e-6) || busy >= 1.0 - 1e-6, "{rates:?} {total} {busy}");
        }

        #[test]
        fn a_better_link_and_a_faster_engine_never_give_less(
            demands in demands(), shared in 1.0..10_000.0f64, which in any::<prop::sample::Index>(), factor in 1.0..3.0f64,
        ) {
            let total = |demands: &[Demand], shared, speed: f64| sum(&water_fill(demands, shared, step(1e-3 / speed, 1e-3 / speed)), demands);
            let before = total(&demands, shared, 1.0) * (1.0 - 1e-9);
            let mut better = demands.clone();
            better[which.index(demands.len())].cap *= factor;
            prop_assert!(total(&better, shared, 1.0) >= before);
            prop_assert!(total(&demands, shared * factor, 1.0) >= before);
            prop_assert!(total(&demands, shared, factor) >= before);
        }
    }
}
