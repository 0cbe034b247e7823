//! `dead-hints`: the hint server dies in the middle, and returns.

use std::time::Duration;

use super::{aim, aim_over_off, half_behind_bad_links};
use crate::experiment::{Action, Calibration, Event, Measure, Scenario, Wanted};

pub(super) fn build(calibration: &Calibration, window: Duration) -> Scenario {
    let about = "As mixed, but the hint server is killed after a third of the time and returns after two. Does the engine do without?";
    let mut scenario = Scenario::new("dead-hints", about, window);
    scenario.groups = half_behind_bad_links(calibration);
    scenario.events = vec![Event { at: window / 3, action: Action::KillHints }, Event { at: window / 3 * 2, action: Action::StartHints }];
    scenario.aims = vec![
        aim("effective throughput at least 0.9 of the bound", Measure::AchievedOverBound, Wanted::AtLeast(0.9)),
        aim_over_off("healthy streams no slower than with off", Measure::HealthyTokensPerS, Wanted::AtLeast(1.0)),
    ];
    scenario
}
