//! Log-probabilities: how many may be asked for, and how JSON tells them.

use crate::{api::ApiError, config::EngineInfo};

/// JSON has no negative infinity; vLLM writes this instead.
const LOWEST: f32 = -9999.0;

/// `logprob` as a number that JSON has.
pub(in crate::api) fn json_logprob(logprob: f32) -> f32 {
    logprob.max(LOWEST)
}

/// The number of alternatives asked for, within what the engine gives. -1 asks for the whole vocabulary.
pub(in crate::api) fn checked_logprobs(param: &str, requested: i64, info: &EngineInfo) -> Result<u32, ApiError> {
    let max = info.max_logprobs;
    let requested = if requested == -1 { info.vocab_size as i64 } else { requested };
    let kind = if param == "prompt_logprobs" { "prompt" } else { "sample" };
    match u32::try_from(requested) {
        Ok(n) if n <= max => Ok(n),
        Ok(n) => Err(ApiError::field(param, format!("Requested {kind} logprobs of {n}, which is greater than max allowed: {max}."))),
        Err(_) if requested > 0 => {
            Err(ApiError::field(param, format!("Requested {kind} logprobs of {requested}, which is greater than max allowed: {max}.")))
        }
        Err(_) => Err(ApiError::field(param, format!("{param} must be non-negative or -1, got {requested}."))),
    }
}
