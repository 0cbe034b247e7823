//! From the four forms of a prompt to token ids.

use serde::Deserialize;

use crate::api::{ApiError, ApiState};

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

/// One list of token ids per prompt, at least one.
pub(in crate::api) async fn prompt_tokens(
    state: &ApiState,
    prompt: PromptField,
    add_special_tokens: bool,
) -> Result<Vec<Vec<u32>>, ApiError> {
    let prompts = match prompt {
        PromptField::Text(text) => vec![state.encode(non_empty(text)?, add_special_tokens).await?],
        PromptField::Texts(texts) => {
            check_count(texts.len())?;
            let mut prompts = Vec::with_capacity(texts.len());
            for text in texts {
                prompts.push(state.encode(non_empty(text)?, add_special_tokens).await?);
            }
            prompts
        }
        PromptField::Tokens(ids) => vec![token_ids(ids)?],
        PromptField::TokenLists(lists) => {
            check_count(lists.len())?;
            lists.into_iter().map(token_ids).collect::<Result<_, _>>()?
        }
    };
    Ok(prompts)
}

fn non_empty(text: String) -> Result<String, ApiError> {
    if text.is_empty() { Err(empty()) } else { Ok(text) }
}

fn token_ids(ids: Vec<i64>) -> Result<Vec<u32>, ApiError> {
    let id = |id| u32::try_from(id).map_err(|_| ApiError::field("prompt", format!("Token id {id} is out of vocabulary.")));
    ids.into_iter().map(id).collect()
}

fn check_count(prompts: usize) -> Result<(), ApiError> {
    match prompts {
        0 => Err(empty()),
        1..=MAX_PROMPTS => Ok(()),
        _ => Err(ApiError::field("prompt", format!("prompt holds {prompts} prompts, at most {MAX_PROMPTS} are taken."))),
    }
}

fn empty() -> ApiError {
    ApiError::field("prompt", "The prompt is empty: at least one token is needed.")
}
