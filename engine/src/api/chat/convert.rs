//! From messages to prompt tokens; `/tokenize` takes the same way.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::messages::normalise;
use crate::api::{ApiError, ApiState};

/// The fields that make a chat's prompt.
#[derive(Debug, Deserialize)]
pub(in crate::api) struct PromptFields {
    messages: Option<Vec<Value>>,
    /// On unless turned off: the prompt ends where the assistant is to speak.
    add_generation_prompt: Option<bool>,
    /// Off unless turned on: templates write their special tokens themselves.
    add_special_tokens: Option<bool>,
    /// Further variables of the template, such as `enable_thinking`.
    chat_template_kwargs: Option<Map<String, Value>>,
}

pub(in crate::api) async fn render_prompt(state: &ApiState, fields: &PromptFields) -> Result<Vec<u32>, ApiError> {
    let messages = normalise(fields.messages.as_deref())?;
    let Some(template) = state.tokenizer.chat_template() else {
        return Err(ApiError::field("messages", "This model has no chat template: use /v1/completions, or serve it with one."));
    };
    let extra = fields.chat_template_kwargs.clone().unwrap_or_default();
    let text = template.render(&messages, fields.add_generation_prompt.unwrap_or(true), &extra)?;
    state.encode(text, fields.add_special_tokens.unwrap_or(false)).await
}
