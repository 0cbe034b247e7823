//! Fields that change logits: penalties, biases, and tokens that may or may not come.

use serde_json::{Map, Value};

use super::GenerationFields;
use crate::{api::ApiError, config::EngineInfo, model::GenerationDefaults, sampling::LogitAdjustments, tokenizer::Tokenizer};

/// Bounds the time that making tokens of bad words takes, and that looking for them does.
const MAX_BAD_WORDS: usize = 1000;
const MAX_BAD_WORD_BYTES: usize = 32 << 10;

impl GenerationFields {
    /// `None` where nothing is asked for. `stop_token_ids` are the request's own, checked.
    pub(super) fn adjustments(
        &self,
        stop_token_ids: &[u32],
        info: &EngineInfo,
        tokenizer: &Tokenizer,
        defaults: &GenerationDefaults,
    ) -> Result<Option<LogitAdjustments>, ApiError> {
        let min_tokens = self.min_tokens.unwrap_or(0);
        let too_low = || ApiError::field("min_tokens", format!("min_tokens must be greater than or equal to 0, got {min_tokens}."));
        let min_tokens = usize::try_from(min_tokens).map_err(|_| too_low())?;
        let adjustments = LogitAdjustments {
            allowed_token_ids: self.allowed_token_ids.as_deref().map(|ids| allowed_token_ids(ids, info)).transpose()?,
            bad_words: bad_words(self.bad_words.as_deref().unwrap_or_default(), tokenizer)?,
            min_tokens,
            stop_token_ids: if min_tokens > 0 { [stop_token_ids, &info.eos_token_ids].concat() } else { Vec::new() },
            logit_bias: self.logit_bias.as_ref().map(|bias| logit_bias(bias, info)).transpose()?.unwrap_or_default(),
            repetition_penalty: repetition_penalty(self.repetition_penalty, defaults.repetition_penalty)?,
            frequency_penalty: penalty("frequency_penalty", self.frequency_penalty)?,
            presence_penalty: penalty("presence_penalty", self.presence_penalty)?,
        };
        Ok((adjustments != LogitAdjustments::default()).then_some(adjustments))
    }
}

fn penalty(param: &str, given: Option<f64>) -> Result<f32, ApiError> {
    let penalty = given.unwrap_or(0.0);
    if !(-2.0..=2.0).contains(&penalty) {
        return Err(ApiError::field(param, format!("{param} must be in [-2, 2], got {penalty:?}.")));
    }
    Ok(penalty as f32)
}

fn repetition_penalty(given: Option<f64>, default: Option<f32>) -> Result<f32, ApiError> {
    let penalty = given.or(default.map(f64::from)).unwrap_or(1.0);
    if penalty <= 0.0 {
        let message = format!("repetition_penalty must be greater than zero, got {penalty:?}.");
        return Err(ApiError::field("repetition_penalty", message));
    }
    if !(penalty as f32).is_normal() {
        return Err(ApiError::field("repetition_penalty", format!("repetition_penalty must be a finite number, got {penalty:?}.")));
    }
    Ok(penalty as f32)
}

fn in_vocabulary(id: i64, info: &EngineInfo) -> Option<u32> {
    u32::try_from(id).ok().filter(|&id| (id as usize) < info.vocab_size)
}

fn allowed_token_ids(ids: &[i64], info: &EngineInfo) -> Result<Vec<u32>, ApiError> {
    const PARAM: &str = "allowed_token_ids";
    if ids.is_empty() {
        return Err(ApiError::field(PARAM, "allowed_token_ids must not be empty."));
    }
    let allowed = |&id| {
        let message = || format!("allowed_token_ids has token id {id}, which is out of vocabulary ({} tokens).", info.vocab_size);
        in_vocabulary(id, info).ok_or_else(|| ApiError::field(PARAM, message()))
    };
    ids.iter().map(allowed).collect()
}

/// Biases are cut to what OpenAI takes, -100 to 100.
fn logit_bias(bias: &Map<String, Value>, info: &EngineInfo) -> Result<Vec<(u32, f32)>, ApiError> {
    const PARAM: &str = "logit_bias";
    let entry = |(key, value): (&String, &Value)| {
        let Ok(id) = key.parse::<i64>() else {
            return Err(ApiError::field(PARAM, format!("logit_bias has the key `{key}`, which is not a token id.")));
        };
        let Some(id) = in_vocabulary(id, info) else {
            let message = format!("token_id(s) [{id}] in logit_bias contain out-of-vocab token ids. Vocabulary size: {}", info.vocab_size);
            return Err(ApiError::field(PARAM, message));
        };
        let Some(value) = value.as_f64() else {
            return Err(ApiError::field(PARAM, format!("logit_bias of token {id} must be a number.")));
        };
        Ok((id, value.clamp(-100.0, 100.0) as f32))
    };
    bias.iter().map(entry).collect()
}

/// Each word as it stands at the beginning of a text, and behind a space where that makes another first token.
fn bad_words(words: &[String], tokenizer: &Tokenizer) -> Result<Vec<Vec<u32>>, ApiError> {
    const PARAM: &str = "bad_words";
    if words.iter().any(String::is_empty) {
        return Err(ApiError::field(PARAM, "bad_words cannot contain an empty string."));
    }
    if words.len() > MAX_BAD_WORDS {
        return Err(ApiError::field(PARAM, format!("bad_words has {} words, at most {MAX_BAD_WORDS} are taken.", words.len())));
    }
    let bytes: usize = words.iter().map(String::len).sum();
    if bytes > MAX_BAD_WORD_BYTES {
        return Err(ApiError::field(PARAM, format!("bad_words has {bytes} bytes of text, at most {MAX_BAD_WORD_BYTES} are taken.")));
    }
    let mut lists: Vec<Vec<u32>> = Vec::new();
    for word in words {
        let word = word.trim_start();
        let bare = tokenizer.encode(word, false)?;
        if bare.is_empty() {
            return Err(ApiError::field(PARAM, "bad_words entries must tokenize to at least one token."));
        }
        let spaced = tokenizer.encode(&format!(" {word}"), false)?;
        let is_other = spaced.first() != bare.first() && spaced.len() == bare.len();
        lists.push(bare);
        lists.extend(is_other.then_some(spaced));
    }
    Ok(lists)
}
