use serde::Deserialize;

/// Fields that both completion routes take, as they come in. `None` stands for absent and for null.
#[derive(Debug, Default, Deserialize)]
pub(in crate::api) struct GenerationFields {
    pub(super) temperature: Option<f64>,
    pub(super) top_p: Option<f64>,
    /// 0 and -1 turn it off.
    pub(super) top_k: Option<i64>,
    pub(super) min_p: Option<f64>,
    pub(super) seed: Option<i64>,
    pub(super) stop: Option<StopField>,
    pub(super) stop_token_ids: Option<Vec<u32>>,
    pub(super) ignore_eos: Option<bool>,
    pub(super) skip_special_tokens: Option<bool>,
    pub(super) stream: Option<bool>,
    pub(super) stream_options: Option<StreamOptions>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a string or a list of strings was expected")]
pub(super) enum StopField {
    One(String),
    Many(Vec<String>),
}

/// What a stream carries beside the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
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
