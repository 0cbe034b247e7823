use schemars::JsonSchema;
use serde::Serialize;

use crate::engine::LinkState;

/// Token counts of a request over all its choices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub(in crate::api) struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
    completion_tokens: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_tokens_details: Option<PromptTokensDetails>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
struct PromptTokensDetails {
    /// Those that were not computed, because an earlier prompt began alike.
    cached_tokens: usize,
}

impl Usage {
    pub(in crate::api) fn new(prompt_tokens: usize, completion_tokens: usize) -> Self {
        Self { prompt_tokens, total_tokens: prompt_tokens + completion_tokens, completion_tokens, ..Self::default() }
    }

    /// With this many tokens of the prompt found in the prefix cache.
    pub(in crate::api) fn with_cached(self, cached_tokens: usize) -> Self {
        Self { prompt_tokens_details: Some(PromptTokensDetails { cached_tokens }), ..self }
    }
}

/// `"tokenflow"` in a chunk: what the engine knows of the link that carries it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub(in crate::api) struct LinkReport {
    /// 0..=1.
    health: f64,
    /// Tokens/s.
    rate: f64,
    paced: bool,
}

impl From<LinkState> for LinkReport {
    fn from(link: LinkState) -> Self {
        // Three digits say all that is known and keep chunks small.
        let rounded = |value: f64| (value * 1e3).round() / 1e3;
        Self { health: rounded(link.health), rate: rounded(link.rate), paced: link.paced }
    }
}
