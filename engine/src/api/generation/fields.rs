use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Fields that both completion routes take, as they come in. `None` stands for absent and for null.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(in crate::api) struct GenerationFields {
    #[schemars(extend("minimum" = 1))]
    pub(super) n: Option<i64>,
    #[schemars(extend("minimum" = 0))]
    pub(super) temperature: Option<f64>,
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 1))]
    pub(super) top_p: Option<f64>,
    /// 0 and -1 turn it off.
    #[schemars(extend("minimum" = -1))]
    pub(super) top_k: Option<i64>,
    #[schemars(extend("minimum" = 0, "maximum" = 1))]
    pub(super) min_p: Option<f64>,
    #[schemars(extend("minimum" = -2, "maximum" = 2))]
    pub(super) presence_penalty: Option<f64>,
    #[schemars(extend("minimum" = -2, "maximum" = 2))]
    pub(super) frequency_penalty: Option<f64>,
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub(super) repetition_penalty: Option<f64>,
    /// By token id, as a string.
    pub(super) logit_bias: Option<Map<String, Value>>,
    pub(super) allowed_token_ids: Option<Vec<i64>>,
    pub(super) bad_words: Option<Vec<String>>,
    #[schemars(extend("minimum" = 0))]
    pub(super) min_tokens: Option<i64>,
    /// -1 asks for one to be drawn.
    pub(super) seed: Option<i64>,
    pub(super) stop: Option<StopField>,
    pub(super) stop_token_ids: Option<Vec<u32>>,
    pub(super) include_stop_str_in_output: Option<bool>,
    pub(super) ignore_eos: Option<bool>,
    pub(super) skip_special_tokens: Option<bool>,
    pub(super) prompt_logprobs: Option<i64>,
    #[schemars(extend("minimum" = -1))]
    pub(super) truncate_prompt_tokens: Option<i64>,
    pub(super) truncation_side: Option<TruncationSide>,
    pub(super) priority: Option<i64>,
    pub(super) cache_salt: Option<String>,
    /// Whose the request is, for caps on tenants; an API key or X-Tenant says it better.
    pub(super) user: Option<String>,
    /// Log-probabilities name tokens by id.
    pub(super) return_tokens_as_token_ids: Option<bool>,
    /// The answer has the ids of its tokens and of the prompt's.
    pub(super) return_token_ids: Option<bool>,
    /// Share of the step budget that the stream's link is worth, where it is less than was measured.
    #[schemars(extend("minimum" = 0, "maximum" = 1))]
    pub(super) health_factor: Option<f64>,
    pub(super) vllm_xargs: Option<ExtraArgs>,
    pub(super) stream: Option<bool>,
    pub(super) stream_options: Option<StreamOptions>,
}

/// Arguments beyond vLLM's own; those that mean nothing here are ignored.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct ExtraArgs {
    /// As the field of the same name.
    #[schemars(extend("minimum" = 0, "maximum" = 1))]
    pub(super) health_factor: Option<f64>,
}

/// Which end of a prompt is cut off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::api) enum TruncationSide {
    #[default]
    Left,
    Right,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a string or a list of strings was expected")]
pub(super) enum StopField {
    One(String),
    Many(Vec<String>),
}

/// What a stream carries beside the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default)]
pub(in crate::api) struct StreamOptions {
    /// A last chunk with token counts.
    #[serde(deserialize_with = "null_is_false")]
    pub(in crate::api) include_usage: bool,
    /// With `include_usage`: the choice's counts so far in every chunk.
    #[serde(deserialize_with = "null_is_false")]
    pub(in crate::api) continuous_usage_stats: bool,
    /// Health and rate of the stream's link in every chunk.
    #[serde(deserialize_with = "null_is_false")]
    pub(in crate::api) include_health: bool,
}

fn null_is_false<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(false))
}
