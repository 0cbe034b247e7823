use serde::{Deserialize, Serialize};

/// How the next token is chosen from the logits. Names and meanings are vLLM's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SamplingParams {
    /// 0 means greedy.
    pub temperature: f32,
    /// Smallest set of tokens whose probabilities sum to at least this; 1 turns it off.
    pub top_p: f32,
    /// Number of likeliest tokens kept; 0 turns it off.
    pub top_k: u32,
    /// Tokens less likely than `min_p` times the likeliest are dropped; 0 turns it off.
    pub min_p: f32,
    /// Seed of this request's random numbers; the engine draws one where the client gave none.
    pub seed: u64,
    /// Number of likeliest tokens to report with log-probabilities beside the chosen one; `None` reports none.
    pub logprobs: Option<u32>,
}

impl SamplingParams {
    pub fn greedy() -> Self {
        Self { temperature: 0.0, top_p: 1.0, top_k: 0, min_p: 0.0, seed: 0, logprobs: None }
    }

    /// Whether the choice is a function of earlier output tokens too, not of the logits and the position alone. Such requests are not
    /// speculated on: a guess at one token would have to be taken in before the next could be judged.
    pub fn depends_on_history(&self) -> bool {
        false
    }

    /// Whether logits are wanted at positions of the prompt, so that all of it must be computed.
    pub fn reads_prompt_logits(&self) -> bool {
        false
    }
}

/// One chosen token. Log-probabilities are of the raw logits (log-softmax before temperature and truncation), as vLLM reports them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampledToken {
    pub token: u32,
    /// Log-probability of `token`; present when the request asked for `logprobs`.
    pub logprob: Option<f32>,
    /// The likeliest tokens in descending order, `SamplingParams::logprobs` of them.
    pub top: Vec<(u32, f32)>,
}
