//! `proxy`: a reverse proxy ends the clients' connections, so that the engine sees their links through its buffers only.

use std::time::Duration;

use super::{aim_over_off, half_behind_bad_links};
use crate::experiment::{Calibration, GroupSpec, Measure, Scenario, Wanted};

pub(super) fn build(calibration: &Calibration, window: Duration) -> Scenario {
    let about = "As mixed, but a reverse proxy with small buffers stands between engine and clients: the bad links are behind it. How much of the gain is left?";
    let mut scenario = Scenario::new("proxy", about, window);
    scenario.groups = half_behind_bad_links(calibration).into_iter().map(|group| GroupSpec { proxied: true, ..group }).collect();
    scenario.aims = vec![aim_over_off("healthy streams no slower than with off", Measure::HealthyTokensPerS, Wanted::AtLeast(1.0))];
    scenario
}
