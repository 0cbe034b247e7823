//! Log-probabilities in the shape of OpenAI's text completions.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    api::generation::{TokenNames, json_logprob},
    sampling::{SampledToken, ScoredToken},
    tokenizer::Tokenizer,
};

/// Four lists of the same length, one entry per token.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(super) struct CompletionLogprobs {
    /// Where the token begins, in characters from the start of the text.
    text_offset: Vec<usize>,
    /// Null for the first token of a prompt, before which there is nothing.
    token_logprobs: Vec<Option<f32>>,
    tokens: Vec<String>,
    /// The chosen token first, then the likeliest.
    top_logprobs: Vec<Option<Map<String, Value>>>,
}

/// Writes [`CompletionLogprobs`] that continue each other.
#[derive(Clone, Copy)]
pub(super) struct LogprobsWriter<'a> {
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) names: TokenNames,
}

impl LogprobsWriter<'_> {
    /// What was sampled, from `offset` on, which is moved to where the next token begins.
    pub(super) fn write(self, sampled: &[SampledToken], offset: &mut usize) -> CompletionLogprobs {
        let mut logprobs = CompletionLogprobs::default();
        sampled.iter().for_each(|token| self.push(&mut logprobs, token, offset));
        logprobs
    }

    /// A prompt, then what was sampled, from the start of the text.
    pub(super) fn write_echo(
        self,
        prompt: &[u32],
        scored: &[ScoredToken],
        sampled: &[SampledToken],
        offset: &mut usize,
    ) -> CompletionLogprobs {
        let mut logprobs = CompletionLogprobs::default();
        if let Some(&first) = prompt.first() {
            self.push_name(&mut logprobs, first, offset);
            logprobs.token_logprobs.push(None);
            logprobs.top_logprobs.push(None);
        }
        scored.iter().for_each(|scored| self.push(&mut logprobs, &scored.token, offset));
        sampled.iter().for_each(|token| self.push(&mut logprobs, token, offset));
        logprobs
    }

    fn push(self, logprobs: &mut CompletionLogprobs, token: &SampledToken, offset: &mut usize) {
        let name = self.push_name(logprobs, token.token, offset);
        let logprob = json_logprob(token.logprob.unwrap_or(f32::NEG_INFINITY));
        let mut top = Map::from_iter([(name, logprob.into())]);
        for &(id, logprob) in &token.top {
            // Parts of characters read alike; the likelier one stands for them.
            top.entry(self.names.of(id, self.tokenizer)).or_insert_with(|| json_logprob(logprob).into());
        }
        logprobs.token_logprobs.push(Some(logprob));
        logprobs.top_logprobs.push(Some(top));
    }

    fn push_name(self, logprobs: &mut CompletionLogprobs, id: u32, offset: &mut usize) -> String {
        let name = self.names.of(id, self.tokenizer);
        logprobs.text_offset.push(*offset);
        *offset += self.tokenizer.token_text(id).chars().count();
        logprobs.tokens.push(name.clone());
        name
    }
}
