use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::sampling::{SampledToken, SamplingParams};

/// Names a sequence for its whole life; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SequenceId(pub u64);

/// A request as the scheduler sees it: validated, tokenised.
#[derive(Clone, Debug, PartialEq)]
pub struct NewSequence {
    pub id: SequenceId,
    /// At least one token; `prompt.len() + max_tokens` is at most the model's context.
    pub prompt: Vec<u32>,
    pub max_tokens: usize,
    /// Tokens that end the sequence when sampled (end of sequence, `stop_token_ids`).
    pub stop_token_ids: Vec<u32>,
    pub ignore_eos: bool,
    pub sampling: SamplingParams,
    /// Whether tokens go to the client as they come. Work that is not streamed is never paced.
    pub streamed: bool,
    /// When it arrived, on the engine's monotonic clock.
    pub arrival: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// A stop token was sampled or a stop string matched.
    Stop,
    /// `max_tokens` or the model's context was reached.
    Length,
    /// The client went away or cancelled.
    Abort,
}

/// What a step meant for one sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct SequenceUpdate {
    pub id: SequenceId,
    pub token: SampledToken,
    /// Set with the last token. A stop token itself is reported in `token` and is not part of the text.
    pub finish: Option<FinishReason>,
    /// Set with the first token: how long the request waited before it was first scheduled.
    pub queued: Option<Duration>,
    /// Number of times the sequence has been preempted so far.
    pub preemptions: u32,
}
