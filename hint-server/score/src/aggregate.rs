//! Many connections into one factor: the mean of their health, weighted by how many bytes each carried lately.
//! Never the minimum (one phone on a train must not throttle everyone), never over idle connections.

use std::time::Duration;

/// After this long without traffic half of a connection's weight is gone.
const HALF_LIFE: Duration = Duration::from_secs(2);
/// After this long it is idle.
const IDLE: Duration = Duration::from_secs(4);

/// Mean of health (0..=1) weighted by activity (bytes carried lately, see [`Activity`]). 1 where no connection is active; entries with an
/// activity that is not a positive number do not count.
pub fn aggregate(connections: impl IntoIterator<Item = (f64, f64)>) -> f64 {
    let (sum, weight) = connections
        .into_iter()
        .filter(|(health, activity)| health.is_finite() && activity.is_finite() && *activity > 0.0)
        .map(|(health, activity)| (health.clamp(0.0, 1.0), activity.min(1e18)))
        .fold((0.0, 0.0), |(sum, weight), (health, activity)| (sum + health * activity, weight + activity));
    if weight > 0.0 { (sum / weight).clamp(0.0, 1.0) } else { 1.0 }
}

/// Bytes that a connection carried, halved every two seconds; 0 after four seconds without any.
#[derive(Clone, Copy, Debug, Default)]
pub struct Activity {
    bytes: f64,
    at: Duration,
}

impl Activity {
    pub fn add(&mut self, at: Duration, bytes: u64) {
        if bytes > 0 {
            self.bytes = self.bytes(at) + bytes as f64;
            self.at = self.at.max(at);
        }
    }

    pub fn bytes(&self, now: Duration) -> f64 {
        let idle = now.saturating_sub(self.at);
        if idle >= IDLE { 0.0 } else { self.bytes * (-idle.as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn without_active_connections_it_is_one() {
        assert_eq!(aggregate([]), 1.0);
        assert_eq!(aggregate([(0.1, 0.0)]), 1.0);
    }

    #[test]
    fn one_bad_link_among_busy_good_ones_weighs_what_it_carries() {
        assert!((aggregate([(1.0, 9000.0), (0.0, 1000.0)]) - 0.9).abs() < 1e-9);
    }

    #[test]
    fn activity_halves_and_ends() {
        let mut activity = Activity::default();
        activity.add(Duration::from_secs(1), 1000);
        assert!((activity.bytes(Duration::from_secs(3)) - 500.0).abs() < 1e-9);
        assert_eq!(activity.bytes(Duration::from_secs(5)), 0.0);
        activity.add(Duration::from_secs(7), 10);
        assert_eq!(activity.bytes(Duration::from_secs(7)), 10.0);
    }

    proptest! {
        #[test]
        fn stays_in_range_whatever_comes(connections in vec((any::<f64>(), any::<f64>()), 0..20)) {
            let health = aggregate(connections);
            prop_assert!((0.0..=1.0).contains(&health), "{health}");
        }

        #[test]
        fn rises_with_each_health_and_never_faster(
            mut connections in vec((0.0..=1.0f64, 0.0..1e9f64), 1..20), which in any::<prop::sample::Index>(), rise in 0.0..=1.0f64,
        ) {
            let before = aggregate(connections.clone());
            let index = which.index(connections.len());
            let health = &mut connections[index].0;
            let step = (*health + rise).min(1.0) - *health;
            *health += step;
            let after = aggregate(connections);
            prop_assert!(after >= before - 1e-9 && after <= before + step + 1e-9, "{before} -> {after}, step {step}");
        }

        #[test]
        fn lies_between_the_least_and_the_greatest(connections in vec((0.0..=1.0f64, 1.0..1e9f64), 1..20)) {
            let least = connections.iter().map(|c| c.0).fold(1.0, f64::min);
            let greatest = connections.iter().map(|c| c.0).fold(0.0, f64::max);
            let health = aggregate(connections);
            prop_assert!(health >= least - 1e-9 && health <= greatest + 1e-9);
        }
    }
}
