//! Carries steps out: a [`StepPlan`] in, a [`StepOutput`] out.
//!
//! Steps are issued and their outputs collected separately, oldest first, so that a device can have the next step before it is done with
//! one: the tokens that it needs of it stay on the device ([`ScheduledSequence::pending`](crate::scheduler::ScheduledSequence::pending)).

mod check;
mod local;

pub use local::{CacheSize, LocalExecutor};

use crate::scheduler::{StepOutput, StepPlan};

/// One thread, one GPU, ranks in threads or ranks across hosts are different executors of the same plan.
///
/// Steps take effect in the order in which they are submitted. At most [`Executor::max_in_flight`] are submitted and not yet collected.
pub trait Executor: Send {
    /// Issues a step: copies blocks, runs the forward pass and samples where the plan asks for it. A plan may have copies alone.
    ///
    /// # Errors
    /// When the plan cannot be executed or the device cannot begin: then there is nothing of this step to collect. The engine fails the
    /// step's requests and goes on; steps before it are not concerned.
    fn submit(&mut self, plan: &StepPlan) -> Result<(), ExecutorError>;

    /// Waits for the oldest step that was submitted and not collected, and returns what came of it. Not called where there is none.
    ///
    /// # Errors
    /// When the device failed: the step is gone then. The engine fails its requests, collects the steps after it without using them,
    /// and goes on.
    fn collect(&mut self) -> Result<StepOutput, ExecutorError>;

    /// How many steps may be submitted before the first is collected.
    fn max_in_flight(&self) -> usize {
        1
    }

    /// One step from beginning to end, where no other is in flight.
    ///
    /// # Errors
    /// As those of the two halves.
    fn execute(&mut self, plan: &StepPlan) -> Result<StepOutput, ExecutorError> {
        self.submit(plan)?;
        self.collect()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    #[error("the {device} backend failed: {reason}")]
    Device { device: &'static str, reason: String },
    #[error("step {step} cannot be executed: {reason}")]
    Plan { step: u64, reason: String },
}
