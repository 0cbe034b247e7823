//! `slow-reader`: the links are good, but some clients do not read.

use std::time::Duration;

use super::{aim, aim_over_off};
use crate::{
    experiment::{Calibration, GroupSpec, Load, Measure, Scenario, Wanted},
    netns::LinkShape,
};

/// Of a fair share, what a slow reader reads.
const READ_SHARE: f64 = 0.25;

pub(super) fn build(calibration: &Calibration, window: Duration) -> Scenario {
    let about = "32 streams on free links, of which 8 are read at a quarter of a fair share. Are the others left alone?";
    let mut scenario = Scenario::new("slow-reader", about, window);
    let bytes_per_s = (READ_SHARE * calibration.fair_share(32) * calibration.payload_bytes_per_token) as u64;
    scenario.groups = vec![
        GroupSpec::new("healthy", 4, 6, LinkShape::free()).healthy(),
        GroupSpec::new("slow", 2, 4, LinkShape::free()).load(Load::SlowReader { bytes_per_s }),
    ];
    scenario.aims = vec![
        aim("health of the others never below 0.9", Measure::HealthMin, Wanted::AtLeast(0.9)),
        aim_over_off("the others no slower than with off", Measure::HealthyTokensPerS, Wanted::AtLeast(0.97)),
    ];
    scenario
}
