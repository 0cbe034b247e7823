//! `mixed`: half of the streams cannot take what they would get; their share is of use to the others.

use std::time::Duration;

use super::{aim, aim_over_off, half_behind_bad_links};
use crate::experiment::{Calibration, Measure, Scenario, Wanted};

pub(super) fn build(calibration: &Calibration, window: Duration) -> Scenario {
    let about = "32 streams, of which 16 are each behind a link of its own that carries a tenth of a fair share. Do the others get what these cannot use?";
    let mut scenario = Scenario::new("mixed", about, window);
    scenario.groups = half_behind_bad_links(calibration);
    scenario.aims = vec![
        aim("effective throughput at least 0.95 of the bound", Measure::AchievedOverBound, Wanted::AtLeast(0.95)),
        aim_over_off("healthy streams at least 1.6 times as fast as with off", Measure::HealthyTokensPerS, Wanted::AtLeast(1.6)),
    ];
    scenario
}
