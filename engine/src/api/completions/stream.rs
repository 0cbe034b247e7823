//! The answer in chunks.

use std::sync::Arc;

use super::{
    logprobs::CompletionLogprobs,
    response::{Choice, Head},
};
use crate::{
    api::generation::{Delta, EventFormat, GenerationOptions, LinkReport, StreamOptions, Usage, write_event},
    tokenizer::Tokenizer,
};

pub(super) struct CompletionEvents {
    head: Head,
    tokenizer: Arc<Tokenizer>,
    with_logprobs: bool,
    with_health: bool,
    /// Per choice: where its next token begins.
    text_offsets: Vec<usize>,
}

impl CompletionEvents {
    pub(super) fn new(head: Head, tokenizer: Arc<Tokenizer>, choices: usize, options: &GenerationOptions, stream: StreamOptions) -> Self {
        Self {
            head,
            tokenizer,
            with_logprobs: options.params.sampling.logprobs.is_some(),
            with_health: stream.include_health,
            text_offsets: vec![0; choices],
        }
    }

    fn write(&self, choices: Vec<Choice<'_>>, usage: Option<Usage>, delta: &Delta, out: &mut Vec<u8>) {
        let mut chunk = self.head.completion(choices);
        chunk.usage = usage;
        chunk.tokenflow = delta.link.filter(|_| self.with_health).map(LinkReport::from);
        write_event(&chunk, out);
    }
}

impl EventFormat for CompletionEvents {
    fn open(&mut self, _: usize, _: &Delta, _: Option<Usage>, _: &mut Vec<u8>) {}

    fn delta(&mut self, index: usize, delta: &Delta, usage: Option<Usage>, out: &mut Vec<u8>) {
        let offset = &mut self.text_offsets[index];
        let logprobs = self.with_logprobs.then(|| CompletionLogprobs::new(&delta.tokens, &self.tokenizer, offset));
        let choice = Choice { index, text: &delta.text, logprobs, finish_reason: delta.finish, stop_reason: None };
        self.write(vec![choice], usage, delta, out);
    }

    fn usage(&mut self, usage: Usage, last: &Delta, out: &mut Vec<u8>) {
        self.write(Vec::new(), Some(usage), last, out);
    }
}
