//! The answer in chunks.

use std::sync::Arc;

use serde::Serialize;

use super::{logprobs::ChatLogprobs, response::Head};
use crate::{
    api::generation::{Delta, EventFormat, GenerationOptions, LinkReport, StreamOptions, Usage, write_event},
    scheduler::FinishReason,
    tokenizer::Tokenizer,
};

pub(super) struct ChatEvents {
    head: Head,
    tokenizer: Arc<Tokenizer>,
    with_logprobs: bool,
    with_health: bool,
}

#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: &'a [Choice<'a>],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokenflow: Option<LinkReport>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: usize,
    delta: Message<'a>,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<FinishReason>,
}

#[derive(Serialize)]
struct Message<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    content: &'a str,
}

impl ChatEvents {
    pub(super) fn new(head: Head, tokenizer: Arc<Tokenizer>, options: &GenerationOptions, stream: StreamOptions) -> Self {
        Self { head, tokenizer, with_logprobs: options.params.sampling.logprobs.is_some(), with_health: stream.include_health }
    }

    fn write(&self, choices: &[Choice<'_>], usage: Option<Usage>, delta: &Delta, out: &mut Vec<u8>) {
        let Head { id, created, model } = &self.head;
        let tokenflow = delta.link.filter(|_| self.with_health).map(LinkReport::from);
        write_event(&Chunk { id, object: "chat.completion.chunk", created: *created, model, choices, usage, tokenflow }, out);
    }
}

impl EventFormat for ChatEvents {
    fn open(&mut self, choice: usize, delta: &Delta, usage: Option<Usage>, out: &mut Vec<u8>) {
        let message = Message { role: Some("assistant"), content: "" };
        self.write(&[Choice { index: choice, delta: message, logprobs: None, finish_reason: None }], usage, delta, out);
    }

    fn delta(&mut self, choice: usize, delta: &Delta, usage: Option<Usage>, out: &mut Vec<u8>) {
        let logprobs = self.with_logprobs.then(|| ChatLogprobs::new(&delta.tokens, &self.tokenizer));
        let message = Message { role: None, content: &delta.text };
        self.write(&[Choice { index: choice, delta: message, logprobs, finish_reason: delta.finish }], usage, delta, out);
    }

    fn usage(&mut self, usage: Usage, last: &Delta, out: &mut Vec<u8>) {
        self.write(&[], Some(usage), last, out);
    }
}
