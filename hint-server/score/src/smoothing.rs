//! Health over time: down fast, up slowly, with a dead band, by elapsed time rather than by tick.
//! Two looks 50 ms apart move it exactly as far as one look after 100 ms.

use std::time::Duration;

/// Time constant of the way down: two looks at the default interval confirm a fall.
const DOWN: Duration = Duration::from_millis(150);
/// Time constant of the way up: from 0 to 0.9 takes 1.6 s.
const UP: Duration = Duration::from_millis(700);
/// Smaller moves are not reported, except onto the ends of the scale.
const DEAD_BAND: f64 = 0.02;
const END: f64 = 0.005;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Smoothed {
    value: f64,
    reported: f64,
    target: f64,
    at: Duration,
}

impl Default for Smoothed {
    /// Healthy until measured otherwise.
    fn default() -> Self {
        Self { value: 1.0, reported: 1.0, target: 1.0, at: Duration::ZERO }
    }
}

impl Smoothed {
    /// From `at` on the value moves towards `target` (0..=1).
    pub(crate) fn aim(&mut self, at: Duration, target: f64) {
        *self = self.advanced(at);
        self.target = target;
    }

    pub(crate) fn reported(&self, now: Duration) -> f64 {
        self.advanced(now).reported
    }

    fn advanced(mut self, now: Duration) -> Self {
        let Some(elapsed) = now.checked_sub(self.at) else { return self };
        let constant = if self.target < self.value { DOWN } else { UP };
        let share = 1.0 - (-elapsed.as_secs_f64() / constant.as_secs_f64()).exp();
        self.value = (self.value + (self.target - self.value) * share).clamp(0.0, 1.0);
        self.at = now;
        let settled = if self.value > 1.0 - END {
            1.0
        } else if self.value < END {
            0.0
        } else if (self.value - self.reported).abs() >= DEAD_BAND {
            self.value
        } else {
            self.reported
        };
        self.reported = settled;
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn down_fast_up_slowly() {
        let mut health = Smoothed::default();
        health.aim(ms(0), 0.0);
        assert!(health.reported(ms(300)) < 0.2);
        health.aim(ms(2000), 1.0);
        assert!(health.reported(ms(2500)) < 0.6);
        assert!(health.reported(ms(3700)) > 0.9);
        assert_eq!(health.reported(ms(8000)), 1.0);
    }

    #[test]
    fn does_not_depend_on_the_number_of_looks() {
        let mut often = Smoothed::default();
        let mut once = Smoothed::default();
        for at in 0..=20 {
            often.aim(ms(at * 10), 0.3);
        }
        once.aim(ms(0), 0.3);
        once.aim(ms(200), 0.3);
        assert!((often.value - once.value).abs() < 1e-9);
    }

    #[test]
    fn small_moves_are_not_reported() {
        let mut health = Smoothed::default();
        health.aim(ms(0), 0.6);
        health.aim(ms(5000), 0.61);
        let before = health.reported(ms(5000));
        assert_eq!(health.reported(ms(9000)), before);
    }

    #[test]
    fn a_clock_that_steps_back_changes_nothing() {
        let mut health = Smoothed::default();
        health.aim(ms(1000), 0.0);
        assert_eq!(health.reported(ms(0)), 1.0);
    }

    /// Targets with the milliseconds before each.
    fn path() -> impl Strategy<Value = Vec<(u64, f64)>> {
        vec((prop_oneof![0u64..200, 0u64..5000], 0.0..=1.0f64), 1..40)
    }

    fn follow(path: &[(u64, f64)], mut each: impl FnMut(Duration, &Smoothed)) {
        let (mut health, mut now) = (Smoothed::default(), Duration::ZERO);
        for &(gap_ms, target) in path {
            now += ms(gap_ms);
            health.aim(now, target);
            each(now, &health);
        }
    }

    proptest! {
        #[test]
        fn stays_between_where_it_was_and_where_it_goes(path in path()) {
            let (mut last, mut aim) = (1.0, 1.0);
            let mut targets = path.iter().map(|&(_, target)| target);
            follow(&path, |_, health| {
                let (low, high) = if aim < last { (aim, last) } else { (last, aim) };
                assert!((low..=high).contains(&health.value), "{} is not in {low}..={high}", health.value);
                last = health.value;
                aim = targets.next().unwrap();
            });
        }

        #[test]
        fn is_reported_within_the_dead_band(path in path()) {
            follow(&path, |now, health| {
                let reported = health.reported(now);
                assert!((0.0..=1.0).contains(&reported));
                assert!((reported - health.value).abs() < DEAD_BAND + END, "{reported} for {}", health.value);
            });
        }

        #[test]
        fn moves_no_further_than_its_time_constants_allow(path in path()) {
            let (mut before, mut at) = (1.0, Duration::ZERO);
            follow(&path, |now, health| {
                let elapsed = (now - at).as_secs_f64();
                let most = |constant: Duration| 1.0 - (-elapsed / constant.as_secs_f64()).exp() + 1e-12;
                assert!(before - health.value <= most(DOWN) && health.value - before <= most(UP), "{before} -> {}", health.value);
                (before, at) = (health.value, now);
            });
        }

        #[test]
        fn a_better_target_at_any_time_never_makes_it_worse(path in path(), which in any::<prop::sample::Index>(), better in 0.0..=1.0f64) {
            let mut improved = path.clone();
            let target = &mut improved[which.index(path.len())].1;
            *target = target.max(better);
            let mut plain = Vec::new();
            follow(&path, |_, health| plain.push(health.value));
            let mut plain = plain.into_iter();
            follow(&improved, |_, health| assert!(health.value >= plain.next().unwrap() - 1e-12));
        }

        #[test]
        fn looks_between_change_nothing(path in path(), extra in 0u64..5000) {
            let (mut often, mut seldom, mut now) = (Smoothed::default(), Smoothed::default(), Duration::ZERO);
            for (gap_ms, target) in path {
                let between = now + ms(extra.min(gap_ms));
                let same = often.target;
                often.aim(between, same);
                now += ms(gap_ms);
                often.aim(now, target);
                seldom.aim(now, target);
                prop_assert!((often.value - seldom.value).abs() < 1e-9, "{} and {}", often.value, seldom.value);
            }
        }
    }
}
