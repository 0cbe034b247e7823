use super::{GenerationFields, StreamOptions, fields::StopField};
use crate::{
    api::{ApiError, ApiState},
    sampling::SamplingParams,
    text::Params,
};

/// OpenAI takes 4. The bounds keep the cost of looking for them small.
const MAX_STOP_STRINGS: usize = 32;
const MAX_STOP_BYTES: usize = 1024;

/// The fields' meaning, checked.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::api) struct GenerationOptions {
    pub(in crate::api) params: Params,
    /// `None` for an answer in one piece.
    pub(in crate::api) stream: Option<StreamOptions>,
}

impl GenerationFields {
    /// Checks every value and fills in the model's defaults. `logprobs` comes from the route, which names it in its own way.
    pub(in crate::api) fn validate(self, state: &ApiState, logprobs: Option<u32>) -> Result<GenerationOptions, ApiError> {
        let (defaults, info) = (state.engine.generation_defaults(), state.engine.info());
        let temperature = self.temperature.or(defaults.temperature.map(f64::from)).unwrap_or(1.0);
        if temperature < 0.0 {
            return Err(ApiError::field("temperature", format!("temperature must be non-negative, got {temperature:?}.")));
        }
        if !(temperature as f32).is_finite() {
            return Err(ApiError::field("temperature", format!("temperature is too large, got {temperature:?}.")));
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
        let stop_token_ids = self.stop_token_ids.unwrap_or_default();
        if let Some(id) = stop_token_ids.iter().find(|&&id| id as usize >= info.vocab_size) {
            let message = format!("stop_token_ids has token id {id}, which is out of vocabulary ({} tokens).", info.vocab_size);
            return Err(ApiError::field("stop_token_ids", message));
        }
        let stream = self.stream.unwrap_or(false);
        if self.stream_options.is_some() && !stream {
            return Err(ApiError::field("stream_options", "stream_options can only be given when `stream` is true."));
        }

        let params = Params {
            // Known once the prompt is tokenised.
            max_tokens: None,
            sampling: SamplingParams {
                temperature: temperature as f32,
                top_p: top_p as f32,
                top_k,
                min_p: min_p as f32,
                logprobs,
                ..SamplingParams::greedy()
            },
            seed: self.seed.map(|seed| seed as u64),
            stop: stop_strings(self.stop)?,
            stop_token_ids,
            ignore_eos: self.ignore_eos.unwrap_or(false),
            skip_special_tokens: self.skip_special_tokens.unwrap_or(true),
            ..Params::default()
        };
        Ok(GenerationOptions { params, stream: stream.then(|| self.stream_options.unwrap_or_default()) })
    }
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
