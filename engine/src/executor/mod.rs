//! Carries one step out: a [`StepPlan`] in, a [`StepOutput`] out.

mod check;
mod local;

pub use local::{CacheSize, LocalExecutor};

use crate::scheduler::{StepOutput, StepPlan};

/// One thread, one GPU, ranks in threads or ranks across hosts are different executors of the same plan.
pub trait Executor: Send {
    /// Copies blocks, runs the forward pass and samples where the plan asks for it. A plan may have copies alone.
    ///
    /// # Errors
    /// When the device fails; the engine then fails the step's requests and goes on.
    fn execute(&mut self, plan: &StepPlan) -> Result<StepOutput, ExecutorError>;
}

#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    #[error("the {device} backend failed: {reason}")]
    Device { device: &'static str, reason: String },
    #[error("step {step} cannot be executed: {reason}")]
    Plan { step: u64, reason: String },
}
