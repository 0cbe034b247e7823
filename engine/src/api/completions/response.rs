//! The answer in one piece, and the object that its chunks are too.

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    logprobs::CompletionLogprobs,
    view::{Shown, View},
};
use crate::{
    api::{
        generation::{Delta, LinkReport, PromptLogprobs, PromptLogprobsShape, StopReason, Usage},
        state::unix_seconds,
    },
    scheduler::FinishReason,
};

/// What every object of one answer repeats.
#[derive(Clone, Debug)]
pub(super) struct Head {
    id: String,
    created: u64,
    model: String,
}

#[derive(Debug, Serialize, JsonSchema)]
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

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Choice<'a> {
    index: usize,
    text: String,
    logprobs: Option<CompletionLogprobs>,
    #[schemars(with = "Option<String>")]
    finish_reason: Option<FinishReason>,
    /// Null where nothing that the request named ended it; left out where it has not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<Option<&'a StopReason>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Vec<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<Vec<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PromptLogprobsShape>")]
    prompt_logprobs: Option<PromptLogprobs>,
}

impl<'a> Choice<'a> {
    pub(super) fn new(index: usize, delta: &'a Delta, shown: Shown) -> Self {
        let Shown { text, logprobs, token_ids, prompt_token_ids, prompt_logprobs } = shown;
        Self {
            index,
            text,
            logprobs,
            finish_reason: delta.finish,
            stop_reason: delta.finish.map(|_| delta.stop_reason.as_ref()),
            token_ids,
            prompt_token_ids,
            prompt_logprobs,
        }
    }
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

/// `wholes` are the choices that are shown, in order; `usage` counts the others too.
pub(super) fn completion<'a>(head: &'a Head, view: &View, usage: Usage, wholes: &'a [Delta]) -> Completion<'a> {
    let choices = wholes.iter().enumerate();
    let choices = choices.map(|(index, whole)| Choice::new(index, whole, view.show(index, whole, true, &mut 0)));
    let mut completion = head.completion(choices.collect());
    completion.usage = Some(usage);
    completion
}
