//! The answer in one piece, and the object that its chunks are too.

use serde::Serialize;

use super::logprobs::CompletionLogprobs;
use crate::{
    api::{
        generation::{Delta, GenerationOptions, LinkReport, StopReason, Usage},
        state::unix_seconds,
    },
    scheduler::FinishReason,
    tokenizer::Tokenizer,
};

/// What every object of one answer repeats.
#[derive(Clone, Debug)]
pub(super) struct Head {
    id: String,
    created: u64,
    model: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Completion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    pub(super) choices: Vec<Choice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usage: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tokenflow: Option<LinkReport>,
}

#[derive(Debug, Serialize)]
pub(super) struct Choice<'a> {
    pub(super) index: usize,
    pub(super) text: &'a str,
    pub(super) logprobs: Option<CompletionLogprobs>,
    pub(super) finish_reason: Option<FinishReason>,
    /// Null where nothing that the request named ended it; left out of chunks, which are OpenAI's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stop_reason: Option<Option<&'a StopReason>>,
}

impl Head {
    pub(super) fn new(request_id: &str, model: String) -> Self {
        Self { id: format!("cmpl-{request_id}"), created: unix_seconds(), model }
    }

    pub(super) fn completion<'a>(&'a self, choices: Vec<Choice<'a>>) -> Completion<'a> {
        let Self { id, created, model } = self;
        Completion { id, object: "text_completion", created: *created, model, choices, usage: None, tokenflow: None }
    }
}

pub(super) fn completion<'a>(
    head: &'a Head,
    tokenizer: &Tokenizer,
    options: &GenerationOptions,
    prompt_tokens: usize,
    wholes: &'a [Delta],
) -> Completion<'a> {
    let choices = wholes.iter().enumerate().map(|(index, whole)| Choice {
        index,
        text: &whole.text,
        logprobs: options.params.sampling.logprobs.map(|_| CompletionLogprobs::new(&whole.tokens, tokenizer, &mut 0)),
        finish_reason: whole.finish,
        stop_reason: Some(whole.stop_reason.as_ref()),
    });
    let mut completion = head.completion(choices.collect());
    completion.usage = Some(Usage::new(prompt_tokens, wholes.iter().map(|whole| whole.num_tokens).sum()));
    completion
}
