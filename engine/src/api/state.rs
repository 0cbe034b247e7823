//! What the routes share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use super::ApiError;
use crate::{engine::Engine, metrics::EngineMetrics, model::GenerationDefaults, tokenizer::Tokenizer};

/// Longest text that is tokenised on the thread that serves other connections too.
const INLINE_TOKENIZE_BYTES: usize = 8 << 10;

/// Everything that a route needs. One per server.
pub struct ApiState {
    pub engine: Engine,
    pub tokenizer: Arc<Tokenizer>,
    pub metrics: Arc<EngineMetrics>,
    /// At least one. All are accepted in requests; the first is reported where a request names none.
    pub served_model_names: Vec<String>,
    /// Where the model came from, as `/v1/models` tells it.
    pub model_root: String,
    /// What a request that does not say otherwise gets; where the model says nothing, OpenAI's defaults.
    pub generation_defaults: GenerationDefaults,
    /// Makes seeds for requests that bring none: a sequence fixed by the server's seed.
    next_seed: AtomicU64,
    started: u64,
}

impl ApiState {
    /// `seed` fixes the sequence of seeds for requests that bring none.
    ///
    /// # Panics
    /// Without a served model name.
    pub fn new(
        engine: Engine,
        tokenizer: Arc<Tokenizer>,
        metrics: Arc<EngineMetrics>,
        served_model_names: Vec<String>,
        model_root: String,
        generation_defaults: GenerationDefaults,
        seed: u64,
    ) -> Self {
        assert!(!served_model_names.is_empty(), "a served model has a name");
        let next_seed = AtomicU64::new(seed);
        let started = unix_seconds();
        Self { engine, tokenizer, metrics, served_model_names, model_root, generation_defaults, next_seed, started }
    }

    /// A seed for a request that brings none: SplitMix64 over the server's seed.
    pub(super) fn draw_seed(&self) -> u64 {
        const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.next_seed.fetch_add(GOLDEN_GAMMA, Relaxed).wrapping_add(GOLDEN_GAMMA);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// When the server started, in seconds since 1970.
    pub(super) fn started(&self) -> u64 {
        self.started
    }

    /// The name to answer with: the requested one if it is served.
    pub(super) fn model_name(&self, requested: Option<&str>) -> Result<String, ApiError> {
        match requested.filter(|name| !name.is_empty()) {
            None => Ok(self.served_model_names[0].clone()),
            Some(name) if self.served_model_names.iter().any(|served| served == name) => Ok(name.to_owned()),
            Some(name) => Err(ApiError::model_not_found(name, &self.served_model_names)),
        }
    }

    /// Tokenises without holding up other connections, however long the text.
    pub(super) async fn encode(&self, text: String, add_special_tokens: bool) -> Result<Vec<u32>, ApiError> {
        if text.len() <= INLINE_TOKENIZE_BYTES {
            return Ok(self.tokenizer.encode(&text, add_special_tokens)?);
        }
        let tokenizer = Arc::clone(&self.tokenizer);
        let encoded = tokio::task::spawn_blocking(move || tokenizer.encode(&text, add_special_tokens)).await;
        let failed = |e| ApiError::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, format!("The text could not be tokenized: {e}"));
        Ok(encoded.map_err(failed)??)
    }
}

pub(super) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
