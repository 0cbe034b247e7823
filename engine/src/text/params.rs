use std::{sync::Arc, time::Duration};

use crate::{
    engine::Origin,
    grammar::CompiledGrammar,
    model::GenerationDefaults,
    sampling::{LogitAdjustments, SamplingParams},
};

/// How one answer is made. Names and meanings are vLLM's.
#[derive(Clone, Debug, PartialEq)]
pub struct Params {
    /// Most tokens of the answer; `None` for as many as the context has room for.
    pub max_tokens: Option<usize>,
    /// How tokens are chosen. Its seed is overwritten, see [`Params::seed`].
    pub sampling: SamplingParams,
    /// Makes the answer repeatable; `None` to have the engine draw one.
    pub seed: Option<u64>,
    /// Strings that end the text, which stops short of them unless [`Params::include_stop_in_output`] is set.
    pub stop: Vec<String>,
    /// Tokens that end it, beside the model's own end-of-sequence tokens.
    pub stop_token_ids: Vec<u32>,
    /// Shows the stop string, or the text of the stop token, at the end of the text.
    pub include_stop_in_output: bool,
    /// Goes on past the model's end-of-sequence tokens.
    pub ignore_eos: bool,
    /// Leaves special tokens out of the text.
    pub skip_special_tokens: bool,
    /// What the whole text must match, see [`Engine::compile`](super::Engine::compile).
    pub grammar: Option<Arc<CompiledGrammar>>,
    /// Under [`SchedulingPolicy::Priority`](crate::scheduler::SchedulingPolicy), the lowest goes first.
    pub priority: i64,
    /// Only requests with the same salt share cached prefixes.
    pub cache_salt: Option<Arc<str>>,
    /// The request ends with an error when it takes longer than this.
    pub timeout: Option<Duration>,
    /// Whose caps bind it.
    pub origin: Origin,
}

impl Default for Params {
    /// OpenAI's defaults: sampled at temperature 1 from all tokens. [`Engine::default_params`](super::Engine::default_params) has the model's own.
    fn default() -> Self {
        Self {
            max_tokens: None,
            sampling: SamplingParams { temperature: 1.0, ..SamplingParams::greedy() },
            seed: None,
            stop: Vec::new(),
            stop_token_ids: Vec::new(),
            include_stop_in_output: false,
            ignore_eos: false,
            skip_special_tokens: true,
            grammar: None,
            priority: 0,
            cache_salt: None,
            timeout: None,
            origin: Origin::default(),
        }
    }
}

impl Params {
    /// Always the likeliest token.
    pub fn greedy() -> Self {
        Self { sampling: SamplingParams::greedy(), ..Self::default() }
    }

    /// Sampled as the model's authors recommend, where they do.
    pub(super) fn recommended(model: &GenerationDefaults) -> Self {
        let mut params = Self::default();
        let sampling = &mut params.sampling;
        sampling.temperature = model.temperature.unwrap_or(sampling.temperature);
        sampling.top_p = model.top_p.unwrap_or(sampling.top_p);
        sampling.top_k = model.top_k.unwrap_or(sampling.top_k);
        sampling.min_p = model.min_p.unwrap_or(sampling.min_p);
        if let Some(repetition_penalty) = model.repetition_penalty.filter(|&penalty| penalty != 1.0) {
            sampling.adjustments = Some(Arc::new(LogitAdjustments { repetition_penalty, ..LogitAdjustments::default() }));
        }
        params
    }

    /// With at most this many tokens.
    pub fn max_tokens(mut self, max_tokens: usize) -> Self {
        self.max_tokens = Some(max_tokens);
        self
    }
}
