//! The scenarios, one file each.

mod dead_hints;
mod flapping;
mod healthy;
mod long_rtt;
mod lossy;
mod mixed;
mod proxy;
mod shared_uplink;
mod slow_reader;

use std::time::Duration;

use super::{Aim, Calibration, GroupSpec, Measure, Mode, Scenario, Wanted};
use crate::netns::LinkShape;

/// Makes a scenario for a machine that can do so much, and a measured window so long.
pub type Build = fn(&Calibration, Duration) -> Scenario;

/// By name, in the order in which `all` runs them.
pub const ALL: &[(&str, Build)] = &[
    ("healthy", healthy::build),
    ("mixed", mixed::build),
    ("shared-uplink", shared_uplink::build),
    ("flapping-2s", flapping::fast),
    ("flapping-10s", flapping::slow),
    ("lossy", lossy::build),
    ("long-rtt", long_rtt::build),
    ("slow-reader", slow_reader::build),
    ("dead-hints", dead_hints::build),
    ("proxy", proxy::build),
];

/// Those of a name, of a family (`flapping` has two), or `all`; none where there is no such.
pub fn named(name: &str) -> Vec<(&'static str, Build)> {
    let chosen =
        |scenario: &str| name == "all" || scenario == name || scenario.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'));
    ALL.iter().copied().filter(|(scenario, _)| chosen(scenario)).collect()
}

/// Of a fair share of compute, what a bad link carries.
const BAD_SHARE: f64 = 0.1;

/// A link that carries a tenth of what each of `streams` would get.
fn bad_link(calibration: &Calibration, streams: usize) -> LinkShape {
    LinkShape::limited(calibration.bits_per_second(BAD_SHARE * calibration.fair_share(streams)))
}

/// Half of 32 streams on free links, the other half behind a bad link each.
fn half_behind_bad_links(calibration: &Calibration) -> Vec<GroupSpec> {
    vec![GroupSpec::new("healthy", 4, 4, LinkShape::free()).healthy(), GroupSpec::new("bad", 16, 1, bad_link(calibration, 32))]
}

/// An aim for `per-connection`.
fn aim(text: &str, measure: Measure, wanted: Wanted) -> Aim {
    Aim { text: text.to_owned(), measure, mode: Mode::PerConnection, relative_to: None, wanted }
}

/// An aim for `per-connection` as a multiple of `off` in the same round.
fn aim_over_off(text: &str, measure: Measure, wanted: Wanted) -> Aim {
    Aim { relative_to: Some(Mode::Off), ..aim(text, measure, wanted) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_can_be_run() {
        let calibration = Calibration { throughput: vec![(1, 200.0), (32, 1600.0)], payload_bytes_per_token: 400.0 };
        for (name, build) in ALL {
            let scenario = build(&calibration, Duration::from_secs(6));
            assert_eq!(scenario.name, *name);
            assert!(!scenario.groups.is_empty() && !scenario.aims.is_empty() && !scenario.about.is_empty(), "{name}");
            assert!(scenario.events.is_sorted_by_key(|event| event.at), "{name}");
            assert!(scenario.events.iter().all(|event| event.at < scenario.window), "{name}: an event after the end is none");
            assert!(scenario.window >= Duration::from_secs(6) && scenario.window <= Duration::from_secs(30), "{name}");
        }
    }

    #[test]
    fn a_family_is_found_by_its_name() {
        let names = |name: &str| named(name).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names("flapping"), ["flapping-2s", "flapping-10s"]);
        assert_eq!(names("mixed"), ["mixed"]);
        assert_eq!(names("all").len(), ALL.len());
        assert!(names("mix").is_empty() && names("").is_empty());
    }
}
