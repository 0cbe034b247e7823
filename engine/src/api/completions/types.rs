use schemars::JsonSchema;
use serde::Deserialize;

use super::PromptField;

/// The fields that only this route has.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct CompletionFields {
    pub(super) model: Option<String>,
    #[schemars(with = "PromptField")]
    pub(super) prompt: Option<PromptField>,
    #[schemars(extend("minimum" = 1))]
    pub(super) max_tokens: Option<i64>,
    /// Number of likeliest tokens to report at each position.
    pub(super) logprobs: Option<i64>,
    /// Answers to make, of which the `n` likeliest are shown; as many as `n` unless it says more.
    pub(super) best_of: Option<i64>,
    /// The answer begins with the prompt.
    pub(super) echo: Option<bool>,
    /// On unless turned off.
    pub(super) add_special_tokens: Option<bool>,
}
