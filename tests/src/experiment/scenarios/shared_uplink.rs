//! `shared-uplink`: everybody behind one bottleneck, whose queue new requests find full or not.

use std::time::Duration;

use super::aim_over_off;
use crate::{
    experiment::{Calibration, GroupSpec, Load, Measure, Scenario, Wanted},
    netns::LinkShape,
};

const STREAMS: usize = 24;

/// Of what the engine makes for these streams, the part that the uplink carries.
const CARRIED: f64 = 0.5;

/// Deep, as uplinks of homes and offices are: this long takes a full one to drain.
const QUEUE_SECONDS: f64 = 1.0;

/// One way: clients in the same country.
const DELAY: Duration = Duration::from_millis(10);

pub(super) fn build(calibration: &Calibration, window: Duration) -> Scenario {
    let about = "24 long streams behind one uplink that carries half of what the engine makes for them, with a second of queue and 20 ms of round trip; \
                 new short requests keep arriving. Is their first token delayed by the queue that the others built?";
    let mut scenario = Scenario::new("shared-uplink", about, window);
    let rate = calibration.bits_per_second(CARRIED * calibration.total(STREAMS));
    let queue = (rate as f64 / 8.0 * QUEUE_SECONDS) as u64;
    scenario.shared = Some(LinkShape::limited(rate).queue(queue.max(LinkShape::QUEUE_BYTES)).delay(DELAY));
    let arrivals = Load::Arrivals { every: Duration::from_millis(400), max_tokens: 8 };
    scenario.groups =
        vec![GroupSpec::new("long", 4, STREAMS / 4, LinkShape::free()), GroupSpec::new("new", 2, 1, LinkShape::free()).load(arrivals)];
    scenario.aims =
        vec![aim_over_off("p99 time to first token of new requests at most half of off's", Measure::TtftP99Ms, Wanted::AtMost(0.5))];
    scenario
}
