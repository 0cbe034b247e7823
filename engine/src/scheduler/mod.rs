//! Decides what runs: turns its queues, the time and what is known of each client's link into a [`StepPlan`].
//!
//! A pure state machine: it knows nothing of HTTP, devices or clocks. Nothing else decides what runs.
//! [`Scheduler`] holds the queues; `policy` fills a step; `pacing` says which streams sit it out.

mod config;
mod network;
pub mod pacing;
mod plan;
mod policy;
mod queues;
mod running;
mod sequence;

pub use config::{AddError, SchedulerConfig, SchedulerStats};
pub use network::{Network, Pacing, StreamSignal};
pub use plan::{SampleRequest, ScheduledSequence, StepOutput, StepPlan};
pub use queues::Scheduler;
pub use sequence::{FinishReason, NewSequence, SequenceId, SequenceUpdate};
