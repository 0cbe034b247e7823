//! `healthy`: nothing is wrong, so that all the difference between modes is what the machinery costs.

use std::time::Duration;

use crate::{
    experiment::{Aim, Calibration, GroupSpec, Measure, Mode, Scenario, Wanted},
    netns::LinkShape,
};

pub(super) fn build(_: &Calibration, _: Duration) -> Scenario {
    Scenario {
        name: "healthy".to_owned(),
        about: "32 streams on free links. Nothing is wrong: what does the machinery cost?".to_owned(),
        groups: vec![GroupSpec::new("clients", 4, 8, LinkShape::free()).healthy()],
        shared: None,
        events: Vec::new(),
        aims: vec![Aim {
            text: "throughput within 1 % of off".to_owned(),
            measure: Measure::EffectiveTokensPerS,
            mode: Mode::PerConnection,
            relative_to: Some(Mode::Off),
            wanted: Wanted::AtLeast(0.99),
        }],
    }
}
