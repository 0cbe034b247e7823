use std::time::Duration;

use crate::{engine::StepToken, scheduler::FinishReason};

/// What came of one answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    pub prompt_tokens: usize,
    /// Those of the prompt's tokens that the prefix cache had.
    pub cached_tokens: usize,
    /// Tokens sampled, as far as they were read.
    pub output_tokens: usize,
    /// `None` when it ended with an error, or nobody read on.
    pub finish: Option<FinishReason>,
    /// The error that ended it.
    pub error: Option<String>,
    /// Arrival to first scheduled, and to the first token.
    pub queued: Option<Duration>,
    pub time_to_first_token: Option<Duration>,
    /// Tokens before which the stream had sat out steps.
    pub paced_tokens: usize,
    /// Of the link, when the latest token was made; 1 where unknown.
    pub health: f64,
}

impl Outcome {
    pub(super) fn take(&mut self, step: &StepToken) {
        self.output_tokens += 1;
        self.paced_tokens += usize::from(step.link.paced);
        self.health = step.link.health;
        if let Some(first) = step.first {
            self.cached_tokens = first.cached_tokens;
            self.queued = Some(first.queued);
            self.time_to_first_token = Some(first.since_arrival);
        }
    }
}

/// Is told what came of an answer when its [`Output`](super::Output) is dropped, to the end or before it.
pub trait Observer: Send + Sync {
    fn ended(&self, outcome: &Outcome);
}
