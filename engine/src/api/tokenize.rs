//! `POST /tokenize` and `POST /detokenize`: what the model reads, and back.

use std::sync::Arc;

use axum::{Json, extract::State};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    ApiError, ApiState, ChatConfig,
    chat::PromptFields,
    json_body::JsonBody,
    openapi::{Operation, reads},
};
use crate::tokenizer::Tokenizer;

/// Either `prompt`, or what a chat takes.
#[derive(Debug, Deserialize, JsonSchema)]
struct TokenizeFields {
    model: Option<String>,
    prompt: Option<String>,
    /// On for a prompt, off for a chat unless said otherwise.
    add_special_tokens: Option<bool>,
    return_token_strs: Option<bool>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Tokenized {
    count: usize,
    max_model_len: usize,
    tokens: Vec<u32>,
    /// The vocabulary's own spelling of each token, when asked for.
    token_strs: Option<Vec<String>>,
}

pub(super) fn describe_tokenize() -> Operation {
    let fields = [reads::<PromptFields>(), reads::<TokenizeFields>()];
    // A prompt or messages: neither is required by itself.
    Operation::post("What the model reads of a text or a chat").takes("TokenizeRequest", fields).gives::<Tokenized>("Tokenized")
}

pub(super) fn describe_detokenize() -> Operation {
    Operation::post("The text of tokens").takes("DetokenizeRequest", [reads::<DetokenizeFields>()]).gives::<Detokenized>("Detokenized")
}

pub(super) async fn tokenize(State(state): State<Arc<ApiState>>, body: JsonBody) -> Result<Json<Tokenized>, ApiError> {
    let fields: TokenizeFields = body.fields()?;
    state.model_name(fields.model.as_deref())?;
    let source = match fields.prompt {
        Some(text) => Source::Text { text, add_special_tokens: fields.add_special_tokens.unwrap_or(true) },
        None if body.get("messages").is_some() => Source::Chat(Box::new(body.fields()?), state.chat),
        None => return Err(ApiError::field("prompt", "prompt is required (or messages, to tokenize a chat).")),
    };
    let return_token_strs = fields.return_token_strs.unwrap_or(false);
    let work = move |tokenizer: &Tokenizer| {
        let tokens = source.encode(tokenizer)?;
        let spelt = |&id: &u32| tokenizer.id_to_token(id).unwrap_or_default();
        let token_strs = return_token_strs.then(|| tokens.iter().map(spelt).collect());
        Ok((tokens, token_strs))
    };
    let (tokens, token_strs) = state.with_text(body.len(), work).await?;
    Ok(Json(Tokenized { count: tokens.len(), max_model_len: state.engine.info().max_model_len, tokens, token_strs }))
}

enum Source {
    Text { text: String, add_special_tokens: bool },
    Chat(Box<PromptFields>, ChatConfig),
}

impl Source {
    fn encode(self, tokenizer: &Tokenizer) -> Result<Vec<u32>, ApiError> {
        let (text, add_special_tokens) = match self {
            Self::Text { text, add_special_tokens } => (text, add_special_tokens),
            Self::Chat(fields, config) => {
                let add_special_tokens = fields.add_special_tokens();
                (fields.render(tokenizer, &config)?, add_special_tokens)
            }
        };
        Ok(tokenizer.encode(&text, add_special_tokens)?)
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
struct DetokenizeFields {
    model: Option<String>,
    tokens: Option<Vec<i64>>,
}

#[derive(Debug, Serialize, JsonSchema)]
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
    let prompt = state.with_text(body.len(), move |tokenizer| Ok(tokenizer.decode(&tokens, false)?)).await?;
    Ok(Json(Detokenized { prompt }))
}
