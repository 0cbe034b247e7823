use serde::Deserialize;

use super::PromptField;

/// The fields that only this route has.
#[derive(Debug, Deserialize)]
pub(super) struct CompletionFields {
    pub(super) model: Option<String>,
    pub(super) prompt: Option<PromptField>,
    pub(super) max_tokens: Option<i64>,
    /// Number of likeliest tokens to report at each position.
    pub(super) logprobs: Option<i64>,
    /// On unless turned off.
    pub(super) add_special_tokens: Option<bool>,
}
