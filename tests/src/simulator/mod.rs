//! Streams in virtual time: the engine's scheduler and the hint server's score as they are, links and devices as models.
//!
//! A run of [`run`] is one device: `device` plans steps and lets them take as long as a calibration and the `context` say; `network` carries what they make
//! over `connection`s with `congestion` control through `queue`s; `hints` scores them as the hint server would. It takes the experiments'
//! scenarios and returns their record, so that both are measured alike. [`fleet`] runs many devices at a time, [`scenarios`] has what only
//! a simulation can do, [`stability`] looks for oscillation. The same seed gives the same run.

mod congestion;
mod connection;
mod context;
mod device;
pub mod fleet;
mod hints;
mod network;
mod options;
mod queue;
pub mod scenarios;
pub mod stability;
mod time;

pub use device::run;
pub use options::{Congestion, Options};
