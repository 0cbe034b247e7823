//! `POST /tokenize` and `POST /detokenize`: what the model reads, and back.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};

use super::{
    ApiError, ApiState,
    chat::{PromptFields, render_prompt},
    json_body::JsonBody,
};

/// Either `prompt`, or what a chat takes.
#[derive(Debug, Deserialize)]
struct TokenizeFields {
    model: Option<String>,
    prompt: Option<String>,
    /// On for a prompt, off for a chat unless said otherwise.
    add_special_tokens: Option<bool>,
    return_token_strs: Option<bool>,
}

#[derive(Debug, Serialize)]
pub(super) struct Tokenized {
    count: usize,
    max_model_len: usize,
    tokens: Vec<u32>,
    /// The vocabulary's own spelling of each token, when asked for.
    token_strs: Option<Vec<String>>,
}

pub(super) async fn tokenize(State(state): State<Arc<ApiState>>, body: JsonBody) -> Result<Json<Tokenized>, ApiError> {
    let fields: TokenizeFields = body.fields()?;
    state.model_name(fields.model.as_deref())?;
    let tokens = match fields.prompt {
        Some(prompt) => state.encode(prompt, fields.add_special_tokens.unwrap_or(true)).await?,
        None if body.get("messages").is_some() => render_prompt(&state, &body.fields::<PromptFields>()?).await?,
        None => return Err(ApiError::field("prompt", "prompt is required (or messages, to tokenize a chat).")),
    };
    let spelt = |&id: &u32| state.tokenizer.id_to_token(id).unwrap_or_default();
    Ok(Json(Tokenized {
        count: tokens.len(),
        max_model_len: state.engine.info().max_model_len,
        token_strs: fields.return_token_strs.unwrap_or(false).then(|| tokens.iter().map(spelt).collect()),
        tokens,
    }))
}

#[derive(Debug, Deserialize)]
struct DetokenizeFields {
    model: Option<String>,
    tokens: Option<Vec<i64>>,
}

#[derive(Debug, Serialize)]
pub(super) struct Detokenized {
    prompt: String,
}

pub(super) async fn detokenize(State(state): State<Arc<ApiState>>, body: JsonBody) -> Result<Json<Detokenized>, ApiError> {
    let fields: DetokenizeFields = body.fields()?;
    state.model_name(fields.model.as_deref())?;
    let given = fields.tokens.ok_or_else(|| ApiError::field("tokens", "tokens is required: a list of token ids."))?;
    let vocab_size = state.engine.info().vocab_size;
    let known = |&id: &i64| u32::try_from(id).ok().filter(|&id| (id as usize) < vocab_size).ok_or(id);
    let tokens = given
        .iter()
        .map(known)
        .collect::<Result<Vec<u32>, i64>>()
        .map_err(|id| ApiError::field("tokens", format!("Token id {id} is out of vocabulary ({vocab_size} tokens).")))?;
    Ok(Json(Detokenized { prompt: state.tokenizer.decode(&tokens, false)? }))
}
