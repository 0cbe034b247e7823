//! Log-probabilities in the shape of OpenAI's chats.

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    api::generation::{TokenNames, json_logprob},
    sampling::SampledToken,
    tokenizer::Tokenizer,
};

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ChatLogprobs {
    content: Vec<TokenLogprob>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct TokenLogprob {
    #[serde(flatten)]
    chosen: Alternative,
    top_logprobs: Vec<Alternative>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Alternative {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

impl ChatLogprobs {
    pub(super) fn new(tokens: &[SampledToken], tokenizer: &Tokenizer, names: TokenNames) -> Self {
        let alternative = |id: u32, logprob: f32| Alternative {
            token: names.of(id, tokenizer),
            logprob: json_logprob(logprob),
            bytes: tokenizer.token_bytes(id),
        };
        let content = tokens.iter().map(|sampled| TokenLogprob {
            chosen: alternative(sampled.token, sampled.logprob.unwrap_or(f32::NEG_INFINITY)),
            top_logprobs: sampled.top.iter().map(|&(id, logprob)| alternative(id, logprob)).collect(),
        });
        Self { content: content.collect() }
    }
}
