//! Experiments on congested links: the real engine, kernel program and TCP, with pacing off, global and per connection in turn.
//!
//! A [`Scenario`] is data: who streams behind which links, and what happens to these when. [`experiment`] runs one: it calibrates the
//! machine, makes the testbed, runs each [`Variant`] in turn (`servers`, `clients`, `run`), computes the [`measure`]s of each [`Record`]
//! against the [`bound`], and writes `summary.json`, a page, plots and time series.

pub(crate) mod answers;
pub mod bound;
mod clients;
mod files;
pub mod measure;
mod model;
mod page;
pub mod plot;
mod record;
mod response;
mod run;
mod scenario;
pub mod scenarios;
mod series;
mod servers;
mod session;
pub mod summary;
mod testbed;
mod variant;

pub use record::{Chunk, Record, Request, RoundTrip, Sample, Seat};
pub use run::WARM_UP;
pub use scenario::{Action, Aim, Calibration, Event, GroupSpec, Load, Measure, Mode, Scenario, StepCost, Wanted};
pub use session::{Options, Progress, experiment, runs, write_index};
pub use summary::Summary;
pub use variant::Variant;
