//! Decides what runs: turns its queues, the time and what is known of each client's link into a [`StepPlan`].
//!
//! A pure state machine: it knows nothing of HTTP, devices or clocks. Nothing else decides what runs.
//! [`Scheduler`] holds the queues; `policy` fills a step, `admission` says who starts, `ngram` guesses ahead, `outcome` takes in what came of
//! it; `pacing` says which streams sit a step out, `caps`
//! what one tenant or connection may take, `seats` how
//! many fit, `offload` where the KV of those goes that give way.

mod admission;
mod budget;
mod caps;
mod config;
mod network;
mod ngram;
mod offload;
mod outcome;
pub mod pacing;
mod plan;
mod policy;
mod queues;
mod running;
mod seats;
mod sequence;

pub use admission::PASSED_OVER_AT_MOST;
pub use caps::{Cap, Caps, FullQueues};
pub use config::{AddError, SchedulerConfig, SchedulerStats, SchedulingPolicy};
pub use network::{Network, Pacing, StreamSignal};
pub use ngram::NgramConfig;
pub use offload::OFFLOAD_AFTER;
pub use pacing::PacingLaw;
pub use plan::{BlockCopy, BlockTransfer, PromptScores, SampleRequest, ScheduledSequence, StepOutput, StepPlan};
pub use queues::{Expired, ExpiryCause, Scheduler};
pub use sequence::{FinishReason, NewSequence, SequenceId, SequenceUpdate};
