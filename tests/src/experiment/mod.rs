//! Experiments on congested links: the real engine, kernel program and TCP, with pacing off, global and per connection in turn.
//!
//! A [`Scenario`] is data: who streams behind which links, and what happens to these when.

mod scenario;
pub mod scenarios;

pub use scenario::{Action, Aim, Calibration, Event, GroupSpec, Load, Measure, Mode, Scenario, Wanted};
