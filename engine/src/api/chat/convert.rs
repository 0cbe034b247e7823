//! From messages to the prompt's text; `/tokenize` takes the same way.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    ChatConfig,
    messages::{MessageShape, normalise},
    tools::Tool,
};
use crate::{api::ApiError, tokenizer::Tokenizer};

/// The fields that make a chat's prompt.
#[derive(Debug, Deserialize, JsonSchema)]
pub(in crate::api) struct PromptFields {
    #[schemars(with = "Vec<MessageShape>")]
    messages: Option<Vec<Value>>,
    /// Described to the model by its template, also where none may be called.
    #[schemars(with = "Option<Vec<Tool>>")]
    tools: Option<Vec<Value>>,
    /// On unless turned off: the prompt ends where the assistant is to speak.
    add_generation_prompt: Option<bool>,
    /// Off unless turned on: templates write their special tokens themselves.
    add_special_tokens: Option<bool>,
    /// Further variables of the template, such as `enable_thinking`.
    chat_template_kwargs: Option<Map<String, Value>>,
    /// `none` to `max`: a variable of the template, which also turns `enable_thinking` off or on.
    reasoning_effort: Option<ReasoningEffort>,
    /// For templates that show the model documents.
    documents: Option<Vec<Value>>,
    /// In place of the model's, where the server trusts requests to bring one.
    chat_template: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum ReasoningEffort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    Xhigh,
    Max,
}

impl PromptFields {
    pub(in crate::api) fn add_special_tokens(&self) -> bool {
        self.add_special_tokens.unwrap_or(false)
    }

    /// The prompt's text.
    pub(in crate::api) fn render(self, tokenizer: &Tokenizer, config: &ChatConfig) -> Result<String, ApiError> {
        let messages = normalise(self.messages.unwrap_or_default())?;
        let own = match self.chat_template {
            None => None,
            Some(_) if !config.trust_request_chat_template => {
                let message = "`chat_template` is taken only by servers that were started with --trust-request-chat-template.";
                return Err(ApiError::field("chat_template", message));
            }
            Some(source) => {
                let template = tokenizer.compile_chat_template(&source, "chat_template");
                Some(template.map_err(|e| ApiError::field("chat_template", format!("`chat_template` cannot be used: {e}.")))?)
            }
        };
        let Some(template) = own.as_ref().or(tokenizer.chat_template()) else {
            return Err(ApiError::field("messages", "This model has no chat template: use /v1/completions, or serve it with one."));
        };
        let mut variables = Map::new();
        if let Some(effort) = self.reasoning_effort {
            variables.insert("reasoning_effort".to_owned(), serde_json::to_value(effort).unwrap_or_default());
            variables.insert("enable_thinking".to_owned(), Value::Bool(effort != ReasoningEffort::None));
        }
        variables.extend(self.chat_template_kwargs.unwrap_or_default());
        let lists = [("tools", self.tools), ("documents", self.documents)];
        variables.extend(lists.into_iter().filter_map(|(name, list)| Some((name.to_owned(), Value::Array(list?)))));
        Ok(template.render(messages, self.add_generation_prompt.unwrap_or(true), variables)?)
    }
}
