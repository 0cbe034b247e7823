//! Log-probabilities in the shape of OpenAI's text completions.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::{api::generation::json_logprob, sampling::SampledToken, tokenizer::Tokenizer};

/// Four lists of the same length, one entry per token.
#[derive(Debug, Default, Serialize)]
pub(super) struct CompletionLogprobs {
    /// Where the token begins, in characters from the start of the output.
    text_offset: Vec<usize>,
    token_logprobs: Vec<f32>,
    tokens: Vec<String>,
    /// The chosen token first, then the likeliest.
    top_logprobs: Vec<Map<String, Value>>,
}

impl CompletionLogprobs {
    /// Continues at `offset`, which is moved to where the next token begins.
    pub(super) fn new(sampled: &[SampledToken], tokenizer: &Tokenizer, offset: &mut usize) -> Self {
        let mut logprobs = Self::default();
        for token in sampled {
            let text = tokenizer.token_text(token.token);
            let logprob = json_logprob(token.logprob.unwrap_or(f32::NEG_INFINITY));
            let mut top = Map::from_iter([(text.clone(), logprob.into())]);
            for &(id, logprob) in &token.top {
                // Parts of characters read alike; the likelier one stands for them.
                top.entry(tokenizer.token_text(id)).or_insert_with(|| json_logprob(logprob).into());
            }
            logprobs.text_offset.push(*offset);
            *offset += text.chars().count();
            logprobs.token_logprobs.push(logprob);
            logprobs.tokens.push(text);
            logprobs.top_logprobs.push(top);
        }
        logprobs
    }
}
