//! From the four forms of a prompt to token ids.

use serde::Deserialize;

use crate::{
    api::{
        ApiError, ApiState,
        generation::{check_text, empty_prompt},
    },
    tokenizer::Tokenizer,
};

/// Bounds the work of one request.
const MAX_PROMPTS: usize = 1024;

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a string, a list of strings, a list of token ids or a list of such lists was expected")]
pub(in crate::api) enum PromptField {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<i64>),
    TokenLists(Vec<Vec<i64>>),
}

/// One list of token ids per prompt of the field `param`, at least one.
pub(in crate::api) async fn prompt_tokens(
    state: &ApiState,
    param: &'static str,
    prompt: PromptField,
    add_special_tokens: bool,
) -> Result<Vec<Vec<u32>>, ApiError> {
    match prompt {
        PromptField::Text(text) => encode(state, param, vec![text], add_special_tokens).await,
        PromptField::Texts(texts) => encode(state, param, texts, add_special_tokens).await,
        PromptField::Tokens(ids) => Ok(vec![token_ids(param, ids)?]),
        PromptField::TokenLists(lists) => {
            check_count(param, lists.len())?;
            lists.into_iter().map(|ids| token_ids(param, ids)).collect()
        }
    }
}

async fn encode(state: &ApiState, param: &'static str, texts: Vec<String>, add_special_tokens: bool) -> Result<Vec<Vec<u32>>, ApiError> {
    check_count(param, texts.len())?;
    let max_model_len = state.engine.info().max_model_len;
    texts.iter().try_for_each(|text| check_text(param, text, &state.tokenizer, max_model_len))?;
    let bytes = texts.iter().map(String::len).sum();
    let encode = move |tokenizer: &Tokenizer| {
        let prompts = texts.iter().map(|text| tokenizer.encode(text, add_special_tokens));
        Ok(prompts.collect::<Result<Vec<_>, _>>()?)
    };
    state.with_text(bytes, encode).await
}

fn token_ids(param: &str, ids: Vec<i64>) -> Result<Vec<u32>, ApiError> {
    let id = |id| u32::try_from(id).map_err(|_| ApiError::field(param, format!("Token id {id} is out of vocabulary.")));
    ids.into_iter().map(id).collect()
}

fn check_count(param: &str, prompts: usize) -> Result<(), ApiError> {
    match prompts {
        0 => Err(empty_prompt(param)),
        1..=MAX_PROMPTS => Ok(()),
        _ => Err(ApiError::field(param, format!("{param} holds {prompts} prompts, at most {MAX_PROMPTS} are taken."))),
    }
}
