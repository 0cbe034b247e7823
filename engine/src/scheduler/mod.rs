//! Decides what runs: turns its queues, the time and what is known of each client's link into a [`StepPlan`].
//!
//! A pure state machine: it knows nothing of HTTP, devices or clocks. Nothing else decides what runs.

mod network;
mod plan;
mod sequence;

pub use network::{Network, Pacing, StreamSignal};
pub use plan::{SampleRequest, ScheduledSequence, StepOutput, StepPlan};
pub use sequence::{FinishReason, NewSequence, SequenceId, SequenceUpdate};
