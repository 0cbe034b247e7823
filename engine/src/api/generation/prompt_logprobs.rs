use serde::{Serialize, Serializer, ser::SerializeSeq};
use serde_json::{Map, Value};

use super::json_logprob;
use crate::{sampling::ScoredToken, tokenizer::Tokenizer};

/// Log-probabilities of a prompt's tokens in vLLM's shape: null for the first, then by token id, the prompt's own token and the likeliest.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::api) struct PromptLogprobs(Vec<Alternatives>);

/// By token id.
#[derive(Clone, Debug, PartialEq)]
struct Alternatives(Vec<(u32, Alternative)>);

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Alternative {
    logprob: f32,
    rank: usize,
    decoded_token: String,
}

/// As it is written.
pub(in crate::api) type PromptLogprobsShape = Vec<Option<Map<String, Value>>>;

impl PromptLogprobs {
    /// `scored` are the prompt's tokens but the first.
    pub(in crate::api) fn new(scored: &[ScoredToken], tokenizer: &Tokenizer) -> Self {
        let alternative = |id: u32, logprob: f32, rank: usize| {
            (id, Alternative { logprob: json_logprob(logprob), rank, decoded_token: tokenizer.token_text(id) })
        };
        let alternatives = |ScoredToken { token, rank }: &ScoredToken| {
            let own = alternative(token.token, token.logprob.unwrap_or(f32::NEG_INFINITY), *rank);
            let others = token.top.iter().enumerate().filter(|(_, (id, _))| *id != token.token);
            Alternatives(std::iter::once(own).chain(others.map(|(i, &(id, logprob))| alternative(id, logprob, i + 1))).collect())
        };
        Self(scored.iter().map(alternatives).collect())
    }
}

impl Serialize for PromptLogprobs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len() + 1))?;
        list.serialize_element(&None::<()>)?;
        self.0.iter().try_for_each(|alternatives| list.serialize_element(alternatives))?;
        list.end()
    }
}

impl Serialize for Alternatives {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(id, alternative)| (id, alternative)))
    }
}
