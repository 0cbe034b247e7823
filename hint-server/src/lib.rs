//! Measures the health of TCP connections and publishes it.
//!
//! The path of a measurement: [`probe`] looks at every watched connection, [`tracker`] scores the looks and notes what changed,
//! [`poller`] makes that happen in time, [`publish`] serves it. [`server`] ties them together; [`cli`] is what an operator says. [`trace`]
//! writes looks down and scores them again; [`peers`] tells other hosts, and [`engine`] asks the engine for what the page shows of it.

pub mod probe;

pub mod poller;
pub mod tracker;

pub mod engine;
pub mod peers;
pub mod publish;

pub mod trace;

pub mod cli;
pub mod privileges;
pub mod server;
