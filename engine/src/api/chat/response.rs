//! The answer in one piece.

use serde::Serialize;

use super::logprobs::ChatLogprobs;
use crate::{
    api::{
        generation::{Delta, GenerationOptions, StopReason, Usage},
        state::unix_seconds,
    },
    scheduler::FinishReason,
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
    choices: [Choice<'a>; 1],
    usage: Usage,
}

#[derive(Debug, Serialize)]
struct Choice<'a> {
    index: usize,
    message: Message<'a>,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<FinishReason>,
    stop_reason: Option<&'a StopReason>,
}

#[derive(Debug, Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
    refusal: Option<()>,
}

pub(super) fn completion<'a>(
    head: &'a Head,
    tokenizer: &Tokenizer,
    options: &GenerationOptions,
    prompt_tokens: usize,
    whole: &'a Delta,
) -> ChatCompletion<'a> {
    ChatCompletion {
        id: &head.id,
        object: "chat.completion",
        created: head.created,
        model: &head.model,
        choices: [Choice {
            index: 0,
            message: Message { role: "assistant", content: &whole.text, refusal: None },
            logprobs: options.params.sampling.logprobs.map(|_| ChatLogprobs::new(&whole.tokens, tokenizer)),
            finish_reason: whole.finish,
            stop_reason: whole.stop_reason.as_ref(),
        }],
        usage: Usage::new(prompt_tokens, whole.num_tokens),
    }
}
