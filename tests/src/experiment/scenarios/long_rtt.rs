//! `long-rtt`: far away is not congested.

use std::time::Duration;

use super::{aim, aim_over_off};
use crate::{
    experiment::{Calibration, GroupSpec, Measure, Scenario, Wanted},
    netns::LinkShape,
};

/// One way.
const DELAY: Duration = Duration::from_millis(100);

pub(super) fn build(_: &Calibration, window: Duration) -> Scenario {
    let about =
        "32 streams, of which 16 are 200 ms of round trip away, on links that are free otherwise. Is distance mistaken for congestion?";
    let mut scenario = Scenario::new("long-rtt", about, window);
    scenario.groups = vec![
        GroupSpec::new("near", 4, 4, LinkShape::free()).healthy(),
        // Nothing is wrong with these either.
        GroupSpec::new("far", 2, 8, LinkShape::free().delay(DELAY)).healthy(),
    ];
    scenario.aims = vec![
        aim("health never below 0.9", Measure::HealthMin, Wanted::AtLeast(0.9)),
        aim_over_off("nobody slower than with off", Measure::HealthyTokensPerS, Wanted::AtLeast(0.97)),
    ];
    scenario
}
