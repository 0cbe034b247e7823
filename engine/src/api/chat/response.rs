//! The answer in one piece.

use serde::Serialize;

use super::{WholeChoice, logprobs::ChatLogprobs};
use crate::{
    api::{
        chat::{ToolCall, WholeMessage},
        generation::{StopReason, Usage},
        state::unix_seconds,
    },
    tokenizer::Tokenizer,
};

/// What every object of one answer repeats.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) model: String,
}

impl Head {
    pub(super) fn new(request_id: &str, model: String) -> Self {
        Self { id: format!("chatcmpl-{request_id}"), created: unix_seconds(), model }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct ChatCompletion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<Choice<'a>>,
    usage: Usage,
}

#[derive(Debug, Serialize)]
struct Choice<'a> {
    index: usize,
    message: Message<'a>,
    logprobs: Option<ChatLogprobs>,
    finish_reason: &'static str,
    stop_reason: Option<&'a StopReason>,
}

#[derive(Debug, Serialize)]
struct Message<'a> {
    role: &'static str,
    /// Null where there are only calls or reasoning.
    content: Option<&'a str>,
    refusal: Option<()>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<&'a str>,
    /// The same by its older name.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<MessageToolCall<'a>>,
}

#[derive(Debug, Serialize)]
struct MessageToolCall<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    function: FunctionCall<'a>,
}

#[derive(Debug, Serialize)]
struct FunctionCall<'a> {
    name: &'a str,
    /// JSON.
    arguments: &'a str,
}

impl<'a> From<&'a WholeMessage> for Message<'a> {
    fn from(message: &'a WholeMessage) -> Self {
        let reasoning = message.reasoning.as_deref();
        let has_other = reasoning.is_some() || !message.calls.is_empty();
        let call = |ToolCall { id, name, arguments }: &'a ToolCall| MessageToolCall {
            id,
            kind: "function",
            function: FunctionCall { name, arguments },
        };
        Self {
            role: "assistant",
            content: Some(message.content.as_str()).filter(|text| !text.is_empty() || !has_other),
            refusal: None,
            reasoning,
            reasoning_content: reasoning,
            tool_calls: message.calls.iter().map(call).collect(),
        }
    }
}

/// `tokenizer` where log-probabilities are to be shown.
pub(super) fn completion<'a>(
    head: &'a Head,
    tokenizer: Option<&Tokenizer>,
    prompt_tokens: usize,
    choices: &'a [WholeChoice],
) -> ChatCompletion<'a> {
    let completion_tokens = choices.iter().map(|choice| choice.output.num_tokens).sum();
    let choices = choices.iter().enumerate().map(|(index, WholeChoice { message, finish_reason, output })| Choice {
        index,
        message: message.into(),
        logprobs: tokenizer.map(|tokenizer| ChatLogprobs::new(&output.tokens, tokenizer)),
        finish_reason,
        stop_reason: output.stop_reason.as_ref(),
    });
    ChatCompletion {
        id: &head.id,
        object: "chat.completion",
        created: head.created,
        model: &head.model,
        choices: choices.collect(),
        usage: Usage::new(prompt_tokens, completion_tokens),
    }
}
