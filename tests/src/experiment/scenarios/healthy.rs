//! `healthy`: nothing is wrong, so that all the difference between modes is what the machinery costs.

use std::time::Duration;

use super::aim_over_off;
use crate::{
    experiment::{Calibration, GroupSpec, Measure, Scenario, Wanted},
    netns::LinkShape,
};

pub(super) fn build(_: &Calibration, window: Duration) -> Scenario {
    let mut scenario = Scenario::new("healthy", "32 streams on free links. Nothing is wrong: what does the machinery cost?", window);
    scenario.groups = vec![GroupSpec::new("clients", 4, 8, LinkShape::free()).healthy()];
    scenario.aims = vec![aim_over_off("throughput within 1 % of off", Measure::EffectiveTokensPerS, Wanted::AtLeast(0.99))];
    scenario
}
