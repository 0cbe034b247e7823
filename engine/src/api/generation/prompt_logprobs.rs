use serde::{Serialize, Serializer, ser::SerializeSeq};
use serde_json::{Map, Value, json};

use super::json_logprob;
use crate::{sampling::ScoredToken, tokenizer::Tokenizer};

/// Log-probabilities of a prompt's tokens in vLLM's shape: null for the first, then by token id, the prompt's own token among the likeliest.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::api) struct PromptLogprobs(Vec<Map<String, Value>>);

/// As it is written.
pub(in crate::api) type PromptLogprobsShape = Vec<Option<Map<String, Value>>>;

impl PromptLogprobs {
    /// `scored` are the prompt's tokens but the first.
    pub(in crate::api) fn new(scored: &[ScoredToken], tokenizer: &Tokenizer) -> Self {
        let entry = |id: u32, logprob: f32, rank: usize| {
            let value = json!({"logprob": json_logprob(logprob), "rank": rank, "decoded_token": tokenizer.token_text(id)});
            (id.to_string(), value)
        };
        let token = |scored: &ScoredToken| {
            let own = entry(scored.token.token, scored.token.logprob.unwrap_or(f32::NEG_INFINITY), scored.rank);
            let mut entries = Map::from_iter([own]);
            for (i, &(id, logprob)) in scored.token.top.iter().enumerate() {
                let (key, value) = entry(id, logprob, i + 1);
                entries.entry(key).or_insert(value);
            }
            entries
        };
        Self(scored.iter().map(token).collect())
    }
}

impl Serialize for PromptLogprobs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len() + 1))?;
        list.serialize_element(&Value::Null)?;
        self.0.iter().try_for_each(|entries| list.serialize_element(entries))?;
        list.end()
    }
}
