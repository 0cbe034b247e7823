//! From the four forms of a prompt to token ids.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    api::{
        ApiError, ApiState,
        generation::{Truncation, check_text, empty_prompt},
    },
    tokenizer::Tokenizer,
};

/// Bounds the work of one request.
const MAX_PROMPTS: usize = 1024;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a string, a list of strings, a list of token ids or a list of such lists was expected")]
pub(in crate::api) enum PromptField {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<i64>),
    TokenLists(Vec<Vec<i64>>),
}

/// A prompt as the model reads it, and its text where it came as text.
pub(in crate::api) struct TokenPrompt {
    pub(in crate::api) tokens: Vec<u32>,
    pub(in crate::api) text: Option<String>,
}

/// At least one prompt, of the field `param`. `truncation` is done here, so that text which is cut anyway may be too long.
pub(in crate::api) async fn prompt_tokens(
    state: &ApiState,
    param: &'static str,
    prompt: PromptField,
    add_special_tokens: bool,
    truncation: Option<Truncation>,
) -> Result<Vec<TokenPrompt>, ApiError> {
    let mut prompts = match prompt {
        PromptField::Text(text) => encode(state, param, vec![text], add_special_tokens, truncation.is_none()).await?,
        PromptField::Texts(texts) => encode(state, param, texts, add_special_tokens, truncation.is_none()).await?,
        PromptField::Tokens(ids) => vec![token_ids(param, ids)?],
        PromptField::TokenLists(lists) => {
            check_count(param, lists.len())?;
            lists.into_iter().map(|ids| token_ids(param, ids)).collect::<Result<_, _>>()?
        }
    };
    if let Some(truncation) = truncation {
        for prompt in &mut prompts {
            let length = prompt.tokens.len();
            truncation.apply(&mut prompt.tokens);
            // What is left of the text is told by the tokens that are left.
            prompt.text.take_if(|_| prompt.tokens.len() < length);
        }
    }
    Ok(prompts)
}

async fn encode(
    state: &ApiState,
    param: &'static str,
    texts: Vec<String>,
    add_special_tokens: bool,
    bounded: bool,
) -> Result<Vec<TokenPrompt>, ApiError> {
    check_count(param, texts.len())?;
    let max_model_len = state.engine.info().max_model_len;
    if bounded {
        texts.iter().try_for_each(|text| check_text(param, text, &state.tokenizer, max_model_len))?;
    }
    let bytes = texts.iter().map(String::len).sum();
    let encode = move |tokenizer: &Tokenizer| {
        let prompt = |text: String| Ok(TokenPrompt { tokens: tokenizer.encode(&text, add_special_tokens)?, text: Some(text) });
        texts.into_iter().map(prompt).collect()
    };
    state.with_text(bytes, encode).await
}

fn token_ids(param: &str, ids: Vec<i64>) -> Result<TokenPrompt, ApiError> {
    let id = |id| u32::try_from(id).map_err(|_| ApiError::field(param, format!("Token id {id} is out of vocabulary.")));
    Ok(TokenPrompt { tokens: ids.into_iter().map(id).collect::<Result<_, _>>()?, text: None })
}

fn check_count(param: &str, prompts: usize) -> Result<(), ApiError> {
    match prompts {
        0 => Err(empty_prompt(param)),
        1..=MAX_PROMPTS => Ok(()),
        _ => Err(ApiError::field(param, format!("{param} holds {prompts} prompts, at most {MAX_PROMPTS} are taken."))),
    }
}
