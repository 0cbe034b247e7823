use schemars::JsonSchema;
use serde::Deserialize;

/// The fields that only this route has.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct ChatFields {
    pub(super) model: Option<String>,
    #[schemars(extend("minimum" = 1))]
    pub(super) max_tokens: Option<i64>,
    /// OpenAI's newer name for `max_tokens`; wins where both are given.
    #[schemars(extend("minimum" = 1))]
    pub(super) max_completion_tokens: Option<i64>,
    pub(super) logprobs: Option<bool>,
    pub(super) top_logprobs: Option<i64>,
    /// On unless turned off: reasoning that is split off the answer comes with it.
    pub(super) include_reasoning: Option<bool>,
}
