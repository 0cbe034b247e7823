//! The answer in one piece.

use schemars::JsonSchema;
use serde::Serialize;

use super::{WholeChoice, logprobs::ChatLogprobs};
use crate::{
    api::{
        chat::{ToolCall, WholeMessage},
        generation::{GenerationOptions, PromptLogprobs, PromptLogprobsShape, StopReason, Usage},
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

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ChatCompletion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<Choice<'a>>,
    usage: Usage,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PromptLogprobsShape>")]
    prompt_logprobs: Option<PromptLogprobs>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<Vec<u32>>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Choice<'a> {
    index: usize,
    message: Message<'a>,
    logprobs: Option<ChatLogprobs>,
    finish_reason: &'static str,
    stop_reason: Option<&'a StopReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<&'a [u32]>,
}

#[derive(Debug, Serialize, JsonSchema)]
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

#[derive(Debug, Serialize, JsonSchema)]
struct MessageToolCall<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    function: FunctionCall<'a>,
}

#[derive(Debug, Serialize, JsonSchema)]
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

/// What is told of the prompt.
pub(super) struct PromptInfo {
    pub(super) tokens: usize,
    /// Where they are to be shown.
    pub(super) ids: Option<Vec<u32>>,
}

pub(super) fn completion<'a>(
    head: &'a Head,
    tokenizer: &Tokenizer,
    options: &GenerationOptions,
    prompt: PromptInfo,
    choices: &'a [WholeChoice],
) -> ChatCompletion<'a> {
    let sampling = &options.params.sampling;
    let completion_tokens = choices.iter().map(|choice| choice.output.num_tokens).sum();
    let first = choices.first().map(|choice| &choice.output);
    let cached_tokens = first.and_then(|first| first.cached_tokens).unwrap_or(0);
    let scored = first.and_then(|first| first.prompt_logprobs.as_deref()).unwrap_or_default();
    let choices = choices.iter().enumerate().map(|(index, WholeChoice { message, finish_reason, output })| Choice {
        index,
        message: message.into(),
        logprobs: sampling.logprobs.map(|_| ChatLogprobs::new(&output.tokens, tokenizer, options.token_names)),
        finish_reason,
        stop_reason: output.stop_reason.as_ref(),
        token_ids: options.return_token_ids.then_some(&output.token_ids),
    });
    ChatCompletion {
        id: &head.id,
        object: "chat.completion",
        created: head.created,
        model: &head.model,
        choices: choices.collect(),
        usage: Usage::new(prompt.tokens, completion_tokens).with_cached(cached_tokens),
        prompt_logprobs: sampling.prompt_logprobs.map(|_| PromptLogprobs::new(scored, tokenizer)),
        prompt_token_ids: prompt.ids,
    }
}
