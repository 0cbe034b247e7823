//! Decides what runs: turns its queues, the time and what is known of each client's link into a [`StepPlan`].
//!
//! A pure state machine: it knows nothing of HTTP, devices or clocks. Nothing else decides what runs.
//! [`Scheduler`] holds the queues of `queued` sequences; `policy` fills a step from them within a `budget`, `admission` says who starts, and
//! `ngram` guesses ahead. `flight` keeps the steps that the executor has, so that the next can be planned meanwhile, and `outcome` takes in
//! what came of one. `pacing` says which streams sit a step out, `caps` what one tenant or connection may take, `seats` how many fit, and
//! `offload` where the KV of those goes that give way.

mod admission;
mod budget;
mod caps;
mod config;
mod flight;
mod network;
mod ngram;
mod offload;
mod outcome;
pub mod pacing;
mod plan;
mod policy;
mod queued;
mod queues;
mod seats;
mod sequence;

pub use admission::PASSED_OVER_AT_MOST;
pub use caps::{Cap, Caps, FullQueues};
pub use config::{AddError, MAX_STEPS_IN_FLIGHT, SchedulerConfig, SchedulerStats, SchedulingPolicy};
pub use network::{Network, Pacing, StreamSignal};
pub use ngram::NgramConfig;
pub use offload::OFFLOAD_AFTER;
pub use pacing::PacingLaw;
pub use plan::{BlockCopy, BlockTransfer, PromptScores, SampleRequest, ScheduledSequence, StepOutput, StepPlan};
pub use queues::{Expired, ExpiryCause, Scheduler};
pub use sequence::{FinishReason, NewSequence, SequenceId, SequenceUpdate};
