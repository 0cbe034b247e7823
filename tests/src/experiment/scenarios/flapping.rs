//! `flapping-2s` and `flapping-10s`: links that are free and bad in turn, as a square wave of that period.

use std::time::Duration;

use super::{aim, aim_over_off, bad_link};
use crate::{
    experiment::{Action, Calibration, Event, GroupSpec, Measure, Scenario, Wanted},
    netns::LinkShape,
};

/// The group whose links change.
const FLAPPING: usize = 1;

/// Half of each period in each state: too short to settle, so what counts is that nobody suffers.
pub(super) fn fast(calibration: &Calibration, window: Duration) -> Scenario {
    let mut scenario = wave("flapping-2s", calibration, window, Duration::from_secs(2));
    scenario.aims = vec![
        aim_over_off("healthy streams no slower than with off", Measure::HealthyTokensPerS, Wanted::AtLeast(0.97)),
        // Not a multiple of off's, which hands out at each opening what it has stored while the link was bad.
        aim("effective throughput at least 0.95 of the bound", Measure::AchievedOverBound, Wanted::AtLeast(0.95)),
    ];
    scenario
}

pub(super) fn slow(calibration: &Calibration, window: Duration) -> Scenario {
    let mut scenario = wave("flapping-10s", calibration, window, Duration::from_secs(10));
    scenario.aims = vec![
        aim("overshoot after a link opens under 20 %", Measure::Overshoot, Wanted::AtMost(0.2)),
        aim("re-convergence within 2 s", Measure::ConvergenceS, Wanted::AtMost(2.0)),
    ];
    scenario
}

/// Whole periods, two at least, each bad first.
fn wave(name: &str, calibration: &Calibration, window: Duration, period: Duration) -> Scenario {
    let periods = window.div_duration_f64(period).ceil().max(2.0) as u32;
    let about = format!(
        "16 streams, of which 8 are each behind a link of its own that is bad (a tenth of a fair share) and free in turn, {} s each. \
         Does their rate follow without swinging?",
        period.as_secs_f64() / 2.0
    );
    let mut scenario = Scenario::new(name, &about, period * periods);
    let bad = bad_link(calibration, 16);
    scenario.groups = vec![GroupSpec::new("healthy", 2, 4, LinkShape::free()).healthy(), GroupSpec::new("flapping", 8, 1, bad.clone())];
    scenario.events = (1..2 * periods)
        .map(|half| {
            let link = if half % 2 == 1 { LinkShape::free() } else { bad.clone() };
            Event { at: period / 2 * half, action: Action::Shape { group: FLAPPING, link } }
        })
        .collect();
    scenario
}
