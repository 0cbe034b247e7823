use std::sync::Arc;

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
    /// Number of likeliest tokens to report with log-probabilities beside each token of the prompt; `None` reports none.
    pub prompt_logprobs: Option<u32>,
    /// What changes the logits before the choice; shared, so that a step's plan clones no vectors. `None` for most requests.
    pub adjustments: Option<Arc<LogitAdjustments>>,
    /// Whether a grammar says which tokens may come; every step then brings a [`super::TokenMask`].
    pub constrained: bool,
}

impl SamplingParams {
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            seed: 0,
            logprobs: None,
            prompt_logprobs: None,
            adjustments: None,
            constrained: false,
        }
    }

    /// Whether the choice is a function of earlier output tokens too, not of the logits and the position alone. Such requests are not
    /// speculated on: a guess at one token would have to be taken in before the next could be judged.
    pub fn depends_on_history(&self) -> bool {
        self.constrained || self.reads_history()
    }

    /// Output tokens that come before anything may stop it.
    pub fn min_tokens(&self) -> usize {
        self.adjustments.as_ref().map_or(0, |adjustments| adjustments.min_tokens)
    }

    /// Whether [`super::sample`] needs to see the sequence's tokens.
    pub fn reads_history(&self) -> bool {
        self.adjustments.as_ref().is_some_and(|adjustments| adjustments.reads_history())
    }

    /// Whether logits are wanted at positions of the prompt, so that all of it must be computed.
    pub fn reads_prompt_logits(&self) -> bool {
        self.prompt_logprobs.is_some()
    }
}

/// Changes to the logits that a request asks for, in the order in which they are made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogitAdjustments {
    /// Only these may be chosen; `None` allows all.
    pub allowed_token_ids: Option<Vec<u32>>,
    /// The last token of each list may not follow the others, where those are output.
    pub bad_words: Vec<Vec<u32>>,
    /// Before this many output tokens, none of `stop_token_ids` is chosen.
    pub min_tokens: usize,
    pub stop_token_ids: Vec<u32>,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// Divides positive logits of tokens of prompt and output, multiplies negative ones; 1 turns it off.
    pub repetition_penalty: f32,
    /// Subtracted for each time that the token is in the output; 0 turns it off.
    pub frequency_penalty: f32,
    /// Subtracted from tokens that are in the output; 0 turns it off.
    pub presence_penalty: f32,
}

impl Default for LogitAdjustments {
    /// Changes nothing.
    fn default() -> Self {
        Self {
            allowed_token_ids: None,
            bad_words: Vec::new(),
            min_tokens: 0,
            stop_token_ids: Vec::new(),
            logit_bias: Vec::new(),
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
        }
    }
}

impl LogitAdjustments {
    pub(super) fn penalises(&self) -> bool {
        self.repetition_penalty != 1.0 || self.frequency_penalty != 0.0 || self.presence_penalty != 0.0
    }

    fn reads_history(&self) -> bool {
        self.penalises() || self.bad_words.iter().any(|word| word.len() > 1)
    }
}

/// One chosen token. Log-probabilities are of the raw logits (log-softmax before penalties, masks, temperature and truncation), which
/// is vLLM's `raw_logprobs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampledToken {
    pub token: u32,
    /// Log-probability of `token`; present when the request asked for `logprobs`.
    pub logprob: Option<f32>,
    /// The likeliest tokens in descending order, `SamplingParams::logprobs` of them.
    pub top: Vec<(u32, f32)>,
}

/// A token of the prompt, as likely as what stands before it makes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScoredToken {
    pub token: SampledToken,
    /// 1 for the likeliest token of the vocabulary.
    pub rank: usize,
}
