//! Log-probabilities: how many may be asked for, and how JSON tells them.

use crate::{api::ApiError, config::EngineInfo};

/// JSON has no negative infinity; vLLM writes this instead.
const LOWEST: f32 = -9999.0;

/// `logprob` as a number that JSON has.
pub(in crate::api) fn json_logprob(logprob: f32) -> f32 {
    logprob.max(LOWEST)
}

/// The number of alternatives asked for, within what the engine gives.
pub(in crate::api) fn checked_logprobs(param: &str, requested: i64, info: &EngineInfo) -> Result<u32, ApiError> {
    match u32::try_from(requested) {
        Ok(n) if n <= info.max_logprobs => Ok(n),
        Ok(n) => {
            let max = info.max_logprobs;
            Err(ApiError::field(param, format!("Requested sample logprobs of {n}, which is greater than max allowed: {max}.")))
        }
        Err(_) => Err(ApiError::field(param, format!("{param} must be non-negative, got {requested}."))),
    }
}
