//! What fits into the context.

use super::fields::TruncationSide;
use crate::{api::ApiError, config::EngineInfo, tokenizer::Tokenizer};

/// Refuses text that is too long whatever its tokens are, which then need not be made.
pub(in crate::api) fn check_text(param: &str, text: &str, tokenizer: &Tokenizer, max_model_len: usize) -> Result<(), ApiError> {
    let (bytes, max_bytes) = (text.len(), max_model_len.saturating_mul(tokenizer.max_bytes_per_token()));
    if text.is_empty() {
        return Err(empty_prompt(param));
    }
    if bytes > max_bytes {
        let message = format!(
            "This model's maximum context length is {max_model_len} tokens, at most {max_bytes} bytes of text. However, your request has \
             {bytes} bytes. Please reduce the length of the input."
        );
        return Err(ApiError::field(param, message));
    }
    Ok(())
}

pub(in crate::api) fn empty_prompt(param: &str) -> ApiError {
    ApiError::field(param, "The prompt is empty: at least one token is needed.")
}

/// What to cut off a prompt before anything else is made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) struct Truncation {
    tokens: usize,
    side: TruncationSide,
}

impl Truncation {
    /// -1 keeps as much as leaves room for an answer.
    pub(super) fn new(tokens: Option<i64>, side: Option<TruncationSide>, max_model_len: usize) -> Result<Option<Self>, ApiError> {
        const PARAM: &str = "truncate_prompt_tokens";
        let tokens = match tokens {
            None => return Ok(None),
            Some(-1) => max_model_len.saturating_sub(1),
            Some(tokens) => usize::try_from(tokens)
                .map_err(|_| ApiError::field(PARAM, format!("truncate_prompt_tokens must be at least -1, got {tokens}.")))?,
        };
        if tokens > max_model_len {
            let message = format!(
                "truncate_prompt_tokens={tokens} cannot be greater than max_model_len = {max_model_len}. Please request a smaller truncation size."
            );
            return Err(ApiError::field(PARAM, message));
        }
        Ok(Some(Self { tokens, side: side.unwrap_or_default() }))
    }

    /// Keeps the last tokens, or the first where the right side is to be cut.
    pub(in crate::api) fn apply(self, prompt: &mut Vec<u32>) {
        let surplus = prompt.len().saturating_sub(self.tokens);
        match self.side {
            TruncationSide::Left => drop(prompt.drain(..surplus)),
            TruncationSide::Right => prompt.truncate(self.tokens),
        }
    }
}

/// Refuses prompts that leave no room for an answer, are empty or hold tokens that the model does not have.
pub(in crate::api) fn check_prompt(param: &str, prompt: &[u32], info: &EngineInfo) -> Result<(), ApiError> {
    let (length, max) = (prompt.len(), info.max_model_len);
    if prompt.is_empty() {
        return Err(empty_prompt(param));
    }
    if length >= max {
        let message = format!(
            "This model's maximum context length is {max} tokens. However, your request has {length} input tokens. \
             Please reduce the length of the input."
        );
        return Err(ApiError::field(param, message));
    }
    if let Some(id) = prompt.iter().find(|&&id| id as usize >= info.vocab_size) {
        return Err(ApiError::field(param, format!("Token id {id} is out of vocabulary ({} tokens).", info.vocab_size)));
    }
    Ok(())
}

/// How many tokens the answer may have. A number that was asked for must fit; a default is cut to what does.
pub(in crate::api) fn max_tokens(
    param: &str,
    requested: Option<i64>,
    default: Option<usize>,
    prompt_length: usize,
    info: &EngineInfo,
) -> Result<usize, ApiError> {
    let max = info.max_model_len;
    let room = max - prompt_length;
    let Some(requested) = requested else { return Ok(default.unwrap_or(room).clamp(1, room)) };
    match usize::try_from(requested) {
        Ok(0) | Err(_) => Err(ApiError::field(param, format!("{param} must be at least 1, got {requested}."))),
        Ok(tokens) if tokens > room => Err(ApiError::field(
            param,
            format!(
                "'{param}' is too large: {tokens}. This model's maximum context length is {max} tokens and your request has \
                 {prompt_length} input tokens ({tokens} > {max} - {prompt_length})."
            ),
        )),
        Ok(tokens) => Ok(tokens),
    }
}

/// Refuses answers that may not end before they must.
pub(in crate::api) fn check_min_tokens(min_tokens: usize, max_tokens: usize) -> Result<(), ApiError> {
    if min_tokens > max_tokens {
        let message = format!("min_tokens must be less than or equal to max_tokens={max_tokens}, got {min_tokens}.");
        return Err(ApiError::field("min_tokens", message));
    }
    Ok(())
}
