use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::completions::PromptField;

/// The fields of the route; others are ignored.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct EmbeddingFields {
    pub(super) model: Option<String>,
    #[schemars(with = "PromptField")]
    pub(super) input: Option<PromptField>,
    /// "float" or "base64".
    pub(super) encoding_format: Option<String>,
    /// Leading dimensions to keep.
    pub(super) dimensions: Option<i64>,
    /// On unless turned off.
    pub(super) add_special_tokens: Option<bool>,
    pub(super) priority: Option<i64>,
    /// Whose the request is, for caps on tenants; an API key or X-Tenant says it better.
    pub(super) user: Option<String>,
}
