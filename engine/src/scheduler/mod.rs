//! Decides what runs: turns its queues, the time and what is known of each client's link into a [`StepPlan`].
//!
//! A pure state machine: it knows nothing of HTTP, devices or clocks. Nothing else decides what runs.
//! [`Scheduler`] holds the queues; `policy` fills a step; `pacing` says which streams sit it out.

mod config;
mod network;
mod ngram;
pub mod pacing;
mod plan;
mod policy;
mod queues;
mod running;
mod sequence;

pub use config::{AddError, SchedulerConfig, SchedulerStats, SchedulingPolicy};
pub use network::{Network, Pacing, StreamSignal};
pub use ngram::NgramConfig;
pub use plan::{BlockCopy, SampleRequest, ScheduledSequence, StepOutput, StepPlan};
pub use queues::Scheduler;
pub use sequence::{FinishReason, NewSequence, SequenceId, SequenceUpdate};
