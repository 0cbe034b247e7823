//! What a control law has to answer well: a step, a ramp, a square wave and noise of the link's rate; and a fleet's mixture of links.

use std::time::Duration;

use crate::{
    experiment::{Action, Calibration, Event, GroupSpec, Scenario, scenarios::Build},
    netns::LinkShape,
    random::Random,
};

/// Streams on free links beside those whose links change.
const HEALTHY: usize = 12;
const CHANGING: usize = 4;
/// The group whose links change.
pub const CHANGING_GROUP: usize = 1;

/// By name.
pub const ALL: &[(&str, Build)] = &[("step", step), ("ramp", ramp), ("square", square), ("noise", noise)];

/// Streams on free links, and some whose link has the rate `share(t)` at `t` of 0..=1, as a fraction of the fair share.
fn changing(
    name: &str,
    about: &str,
    calibration: &Calibration,
    window: Duration,
    every: Duration,
    mut share: impl FnMut(f64) -> f64,
) -> Scenario {
    let fair = calibration.fair_share(HEALTHY + CHANGING);
    let mut link =
        |t: f64| LinkShape { delay: Duration::from_millis(10), ..LinkShape::limited(calibration.bits_per_second(share(t) * fair)) };
    let mut scenario = Scenario::new(name, about, window);
    let first = link(0.0);
    scenario.groups =
        vec![GroupSpec::new("healthy", HEALTHY, 1, LinkShape::free()).healthy(), GroupSpec::new("changing", CHANGING, 1, first.clone())];
    let mut last = first;
    for n in 1.. {
        let at = every * n;
        if at >= window {
            break;
        }
        let next = link(at.as_secs_f64() / window.as_secs_f64());
        if next != last {
            scenario.events.push(Event { at, action: Action::Shape { group: CHANGING_GROUP, link: next.clone() } });
            last = next;
        }
    }
    scenario
}

/// The links lose four fifths of their rate after a third of the time and get it back after two thirds.
pub fn step(calibration: &Calibration, window: Duration) -> Scenario {
    let about = "4 of 16 links fall from 0.75 to 0.15 of the fair share and return.";
    changing("step", about, calibration, window, window / 3, |t| if (0.3..0.6).contains(&t) { 0.15 } else { 0.75 })
}

/// The rate falls evenly to a tenth, and rises again.
pub fn ramp(calibration: &Calibration, window: Duration) -> Scenario {
    let about = "4 of 16 links fall evenly from 0.8 to 0.1 of the fair share and rise again.";
    changing("ramp", about, calibration, window, Duration::from_millis(200), |t| 0.1 + 0.7 * (2.0 * t - 1.0).abs())
}

/// Every two seconds the rate changes sixfold.
pub fn square(calibration: &Calibration, window: Duration) -> Scenario {
    let every = Duration::from_secs(2);
    let about = "4 of 16 links change between 0.6 and 0.1 of the fair share every 2 s.";
    let periods = window.as_secs_f64() / every.as_secs_f64();
    changing("square", about, calibration, window, every, |t| if ((t * periods).round() as u64).is_multiple_of(2) { 0.6 } else { 0.1 })
}

/// Ten times a second the rate is another.
pub fn noise(calibration: &Calibration, window: Duration) -> Scenario {
    let mut random = Random::new(7);
    let about = "4 of 16 links change between 0.2 and 0.6 of the fair share at random every 100 ms.";
    changing("noise", about, calibration, window, Duration::from_millis(100), move |_| 0.2 + 0.4 * random.fraction())
}

/// One device's share of a fleet: most links are free, some slow, some far, some flap, some lose packets.
pub fn mixture(calibration: &Calibration, window: Duration, streams: usize, seed: u64) -> Scenario {
    let mut random = Random::new(seed);
    let fair = calibration.fair_share(streams);
    let mut scenario = Scenario::new("fleet", "Most links are free, some slow, far, flapping or lossy.", window);
    let parts = |share: f64| ((streams as f64 * share) as usize).max(1);
    let (slow, far, flapping, lossy) = (parts(0.2), parts(0.1), parts(0.05), parts(0.05));
    let free = streams.saturating_sub(slow + far + flapping + lossy).max(1);
    let delay = |ms| Duration::from_millis(ms);
    let limited = |share: f64| LinkShape::limited(calibration.bits_per_second(share * fair));
    scenario.groups = vec![
        GroupSpec::new("free", free, 1, LinkShape { delay: delay(5 + random.below(20)), ..LinkShape::free() }).healthy(),
        GroupSpec::new("slow", slow, 1, LinkShape { delay: delay(20), ..limited(0.1 + 0.4 * random.fraction()) }),
        GroupSpec::new("far", far, 1, LinkShape { delay: delay(100), ..LinkShape::free() }),
        GroupSpec::new("flapping", flapping, 1, limited(0.5)),
        GroupSpec::new("lossy", lossy, 1, LinkShape { loss: 0.02, delay: delay(15), ..LinkShape::free() }),
    ];
    for n in 1.. {
        let at = Duration::from_secs(2) * n;
        if at >= window {
            break;
        }
        let link = limited(if n % 2 == 1 { 0.1 } else { 0.5 });
        scenario.events.push(Event { at, action: Action::Shape { group: 3, link } });
    }
    scenario
}
