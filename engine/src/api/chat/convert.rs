//! From messages to the prompt's text; `/tokenize` takes the same way.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::messages::normalise;
use crate::{api::ApiError, tokenizer::Tokenizer};

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

impl PromptFields {
    pub(in crate::api) fn add_special_tokens(&self) -> bool {
        self.add_special_tokens.unwrap_or(false)
    }

    /// The prompt's text.
    pub(in crate::api) fn render(self, tokenizer: &Tokenizer) -> Result<String, ApiError> {
        let messages = normalise(self.messages.unwrap_or_default())?;
        let Some(template) = tokenizer.chat_template() else {
            return Err(ApiError::field("messages", "This model has no chat template: use /v1/completions, or serve it with one."));
        };
        let extra = self.chat_template_kwargs.unwrap_or_default();
        Ok(template.render(messages, self.add_generation_prompt.unwrap_or(true), extra)?)
    }
}
