use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::sampling::{SampledToken, SamplingParams, ScoredToken};

/// Names a sequence for its whole life; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SequenceId(pub u64);

/// A request as the scheduler sees it: validated, tokenised.
#[derive(Clone, Debug, PartialEq)]
pub struct NewSequence {
    pub id: SequenceId,
    /// At least one token, and fewer than the model's context.
    pub prompt: Vec<u32>,
    /// At least 1.
    pub max_tokens: usize,
    /// Tokens that end the sequence when sampled: the request's `stop_token_ids`, and the model's end-of-sequence tokens unless it ignores them.
    pub stop_token_ids: Vec<u32>,
    pub sampling: SamplingParams,
    /// Whether tokens go to the client as they come. Work that is not streamed is never paced.
    pub streamed: bool,
    /// When it arrived, on the engine's monotonic clock.
    pub arrival: Duration,
    /// Under [`SchedulingPolicy::Priority`](super::SchedulingPolicy::Priority), the lowest goes first.
    pub priority: i64,
    /// Only sequences with the same salt share cached blocks.
    pub cache_salt: Option<Arc<str>>,
    /// The first sequence of a group with one prompt, which computes it for all; its own id for the first itself.
    pub group: Option<SequenceId>,
    /// Whose it is, where the caps on tenants ask; requests that name none are one tenant's.
    pub tenant: Option<Arc<str>>,
    /// Which connection it came by, where the caps on connections ask; an unknown one has no cap.
    pub connection: Option<u64>,
    /// When it ends if it has not by then, on the clock of `arrival`.
    pub deadline: Option<Duration>,
    /// When it ends if none of it has been computed by then.
    pub start_by: Option<Duration>,
}

impl NewSequence {
    /// One that is not streamed, came at time 0 and has nothing else of its own.
    pub fn new(id: SequenceId, prompt: Vec<u32>, max_tokens: usize, sampling: SamplingParams) -> Self {
        Self {
            id,
            prompt,
            max_tokens,
            stop_token_ids: Vec::new(),
            sampling,
            streamed: false,
            arrival: Duration::ZERO,
            priority: 0,
            cache_salt: None,
            group: None,
            tenant: None,
            connection: None,
            deadline: None,
            start_by: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// A stop token was sampled or a stop string matched.
    Stop,
    /// `max_tokens`, the model's context or the size of the whole KV cache was reached.
    Length,
    /// The client went away or cancelled.
    Abort,
}

impl FinishReason {
    /// As OpenAI's API spells it, and vLLM's metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Abort => "abort",
        }
    }
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
    /// Set with the first token: how many of the prompt's tokens were found in the prefix cache.
    pub cached_tokens: Option<usize>,
    /// Set with the first token, where the parameters ask for it: the prompt's tokens but the first.
    pub prompt_logprobs: Option<Vec<ScoredToken>>,
    /// Number of times the sequence has been preempted so far.
    pub preemptions: u32,
    /// Whether pacing made the sequence sit steps out since its last token.
    pub paced: bool,
}
