//! The scenarios, one file each.

mod healthy;

use std::time::Duration;

use super::{Calibration, Scenario};

/// Makes a scenario for a machine that can do so much, and a measured window so long.
pub type Build = fn(&Calibration, Duration) -> Scenario;

/// By name, in the order in which `all` runs them.
pub const ALL: &[(&str, Build)] = &[("healthy", healthy::build)];
