//! `lossy`: packets are lost by chance while the link could carry more than the streams need.

use std::time::Duration;

use super::aim_over_off;
use crate::{
    experiment::{Calibration, GroupSpec, Measure, Scenario, Wanted},
    netns::LinkShape,
};

/// One way: loss costs a round trip, so there must be one.
const DELAY: Duration = Duration::from_millis(20);

pub(super) fn build(_: &Calibration, window: Duration) -> Scenario {
    let about = "32 streams, of which 16 are on links with 40 ms of round trip that lose 2, 5 and 10 % of packets at random, and no other limit. \
                 Is loss that does not limit a stream mistaken for congestion?";
    let mut scenario = Scenario::new("lossy", about, window);
    let lossy = |name: &str, streams: usize, loss: f64| GroupSpec::new(name, 1, streams, LinkShape::free().delay(DELAY).loss(loss));
    scenario.groups = vec![
        GroupSpec::new("healthy", 4, 4, LinkShape::free()).healthy(),
        lossy("loss-2", 6, 0.02),
        lossy("loss-5", 5, 0.05),
        lossy("loss-10", 5, 0.1),
    ];
    scenario.aims = vec![
        aim_over_off("healthy streams no slower than with off", Measure::HealthyTokensPerS, Wanted::AtLeast(0.97)),
        aim_over_off("all together no slower than with off", Measure::EffectiveTokensPerS, Wanted::AtLeast(0.97)),
    ];
    scenario
}
