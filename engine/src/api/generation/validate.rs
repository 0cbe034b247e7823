use std::sync::Arc;

use super::{
    GenerationFields, StreamOptions, Truncation, checked_logprobs,
    constraint::{NamedConstraint, constraint},
    fields::StopField,
};
use crate::{
    api::{ApiError, ApiState, json_body::JsonBody},
    engine::Origin,
    sampling::SamplingParams,
    text::Params,
    tokenizer::Tokenizer,
};

/// OpenAI takes 4. The bounds keep the cost of looking for them small.
const MAX_STOP_STRINGS: usize = 32;
const MAX_STOP_BYTES: usize = 1024;

/// As vLLM.
const MAX_CACHE_SALT_CHARS: usize = 1024;

/// Most answers to one request, over all its prompts.
const MAX_CHOICES: usize = 1024;

/// Below this, sampling is greedy, as in the sampler.
const GREEDY_BELOW: f64 = 1e-5;

/// The fields' meaning, checked.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::api) struct GenerationOptions {
    /// Its grammar is still to be compiled: see `constraint`.
    pub(in crate::api) params: Params,
    /// Answers to each prompt, at least 1.
    pub(in crate::api) n: usize,
    /// What the answer must match, and the field that says so.
    pub(in crate::api) constraint: Option<NamedConstraint>,
    pub(in crate::api) truncation: Option<Truncation>,
    pub(in crate::api) token_names: TokenNames,
    /// Whether the answer has the ids of its tokens and of the prompt's.
    pub(in crate::api) return_token_ids: bool,
    /// The least that the request says of its own link, 0..=1.
    pub(in crate::api) health_factor: Option<f64>,
    /// `None` for an answer in one piece.
    pub(in crate::api) stream: Option<StreamOptions>,
}

/// How log-probabilities name tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::api) enum TokenNames {
    #[default]
    Text,
    /// `token_id:17`, which tells parts of characters apart.
    Ids,
}

impl TokenNames {
    pub(in crate::api) fn of(self, id: u32, tokenizer: &Tokenizer) -> String {
        match self {
            Self::Text => tokenizer.token_text(id),
            Self::Ids => format!("token_id:{id}"),
        }
    }
}

impl GenerationFields {
    /// Checks every value and fills in the model's defaults. `logprobs` comes from the route, which names it in its own way.
    pub(in crate::api) fn validate(self, state: &ApiState, body: &JsonBody, logprobs: Option<u32>) -> Result<GenerationOptions, ApiError> {
        let (defaults, info) = (state.engine.generation_defaults(), state.engine.info());
        let temperature = self.temperature.or(defaults.temperature.map(f64::from)).unwrap_or(1.0);
        if temperature < 0.0 {
            return Err(ApiError::field("temperature", format!("temperature must be non-negative, got {temperature:?}.")));
        }
        if temperature > 2.0 {
            return Err(ApiError::field("temperature", format!("temperature must be in [0, 2], got {temperature:?}.")));
        }
        let top_p = self.top_p.or(defaults.top_p.map(f64::from)).unwrap_or(1.0);
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(ApiError::field("top_p", format!("top_p must be in (0, 1], got {top_p:?}.")));
        }
        let top_k = self.top_k.or(defaults.top_k.map(i64::from)).unwrap_or(0);
        let top_k = u32::try_from(if top_k == -1 { 0 } else { top_k })
            .map_err(|_| ApiError::field("top_k", format!("top_k must be 0 (disable), or at least 1, got {top_k}.")))?;
        let min_p = self.min_p.or(defaults.min_p.map(f64::from)).unwrap_or(0.0);
        if !(0.0..=1.0).contains(&min_p) {
            return Err(ApiError::field("min_p", format!("min_p must be in [0, 1], got {min_p:?}.")));
        }
        let n = number_of_choices("n", self.n.unwrap_or(1))?;
        if n > 1 && temperature < GREEDY_BELOW {
            return Err(ApiError::field("n", format!("n must be 1 when using greedy sampling, got {n}.")));
        }
        let stop_token_ids = self.stop_token_ids.as_deref().unwrap_or_default();
        if let Some(id) = stop_token_ids.iter().find(|&&id| id as usize >= info.vocab_size) {
            let message = format!("stop_token_ids has token id {id}, which is out of vocabulary ({} tokens).", info.vocab_size);
            return Err(ApiError::field("stop_token_ids", message));
        }
        let stream = self.stream.unwrap_or(false);
        if self.stream_options.is_some() && !stream {
            return Err(ApiError::field("stream_options", "stream_options can only be given when `stream` is true."));
        }
        let prompt_logprobs = self.prompt_logprobs.map(|count| checked_logprobs("prompt_logprobs", count, info)).transpose()?;
        if stream && prompt_logprobs.is_some() {
            return Err(ApiError::field("prompt_logprobs", "`prompt_logprobs` are not available when `stream=True`."));
        }
        if self.cache_salt.as_deref().is_some_and(|salt| salt.is_empty() || salt.chars().count() > MAX_CACHE_SALT_CHARS) {
            return Err(ApiError::field("cache_salt", format!("cache_salt must have 1 to {MAX_CACHE_SALT_CHARS} characters.")));
        }
        let own = health_factor("health_factor", self.health_factor)?;
        let extra = health_factor("vllm_xargs.health_factor", self.vllm_xargs.as_ref().and_then(|args| args.health_factor))?;
        let adjustments = self.adjustments(stop_token_ids, info, &state.tokenizer, defaults)?;
        let truncation = Truncation::new(self.truncate_prompt_tokens, self.truncation_side, info.max_model_len)?;

        let params = Params {
            // Known once the prompt is tokenised.
            max_tokens: None,
            sampling: SamplingParams {
                temperature: temperature as f32,
                top_p: top_p as f32,
                top_k,
                min_p: min_p as f32,
                logprobs,
                prompt_logprobs,
                adjustments: adjustments.map(Arc::new),
                ..SamplingParams::greedy()
            },
            seed: self.seed.filter(|&seed| seed != -1).map(|seed| seed as u64),
            stop: stop_strings(self.stop)?,
            stop_token_ids: self.stop_token_ids.unwrap_or_default(),
            include_stop_in_output: self.include_stop_str_in_output.unwrap_or(false),
            ignore_eos: self.ignore_eos.unwrap_or(false),
            skip_special_tokens: self.skip_special_tokens.unwrap_or(true),
            priority: self.priority.unwrap_or(0),
            cache_salt: self.cache_salt.map(Arc::from),
            origin: Origin { tenant: self.user.filter(|user| !user.is_empty()).map(Arc::from), connection: None },
            ..Params::default()
        };
        Ok(GenerationOptions {
            params,
            n,
            constraint: constraint(body)?,
            truncation,
            token_names: if self.return_tokens_as_token_ids.unwrap_or(false) { TokenNames::Ids } else { TokenNames::Text },
            return_token_ids: self.return_token_ids.unwrap_or(false),
            health_factor: [own, extra].into_iter().flatten().reduce(f64::min),
            stream: stream.then(|| self.stream_options.unwrap_or_default()),
        })
    }
}

fn health_factor(param: &str, given: Option<f64>) -> Result<Option<f64>, ApiError> {
    match given {
        Some(factor) if !(0.0..=1.0).contains(&factor) => {
            Err(ApiError::field(param, format!("{param} must be in [0, 1], got {factor:?}.")))
        }
        given => Ok(given),
    }
}

/// A number of answers to one prompt.
pub(in crate::api) fn number_of_choices(param: &str, given: i64) -> Result<usize, ApiError> {
    match usize::try_from(given) {
        Ok(0) | Err(_) => Err(ApiError::field(param, format!("{param} must be at least 1, got {given}."))),
        Ok(n) if n > MAX_CHOICES => Err(ApiError::field(param, format!("{param} must be at most {MAX_CHOICES}, got {given}."))),
        Ok(n) => Ok(n),
    }
}

/// Bounds what one request can ask for.
pub(in crate::api) fn check_choices(prompts: usize, n: usize) -> Result<(), ApiError> {
    if prompts.saturating_mul(n) > MAX_CHOICES {
        let message =
            format!("{prompts} prompts with n = {n} make more than {MAX_CHOICES} answers, which is the most that one request may have.");
        return Err(ApiError::field("n", message));
    }
    Ok(())
}

fn stop_strings(field: Option<StopField>) -> Result<Vec<String>, ApiError> {
    let stop = match field {
        None => Vec::new(),
        Some(StopField::One(stop)) => vec![stop],
        Some(StopField::Many(stops)) => stops,
    };
    if stop.len() > MAX_STOP_STRINGS {
        return Err(ApiError::field("stop", format!("stop has {} strings, at most {MAX_STOP_STRINGS} are taken.", stop.len())));
    }
    if stop.iter().any(String::is_empty) {
        return Err(ApiError::field("stop", "stop cannot contain an empty string."));
    }
    if stop.iter().any(|s| s.len() > MAX_STOP_BYTES) {
        return Err(ApiError::field("stop", format!("A stop string is longer than {MAX_STOP_BYTES} bytes.")));
    }
    Ok(stop)
}
