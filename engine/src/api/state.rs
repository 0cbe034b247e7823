//! What the routes share.

use std::{
    fmt::Display,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::http::StatusCode;
use tokio::sync::Semaphore;

use super::{ApiError, ApiKeys, ChatConfig, TrustedProxies};
use crate::{text::Engine, tokenizer::Tokenizer};

/// Most text of one request that is worked on by the thread that serves other connections too.
const INLINE_TEXT_BYTES: usize = 8 << 10;

/// Everything that a route needs. One per server.
pub struct ApiState {
    pub engine: Engine,
    /// The engine's own.
    pub tokenizer: Arc<Tokenizer>,
    /// At least one. All are accepted in requests; the first is reported where a request names none.
    pub served_model_names: Vec<String>,
    /// Where the model came from, as `/v1/models` tells it.
    pub model_root: String,
    /// How chats are written and read.
    pub chat: ChatConfig,
    /// Tokens in a chunk of a stream, but for the first.
    pub stream_interval: usize,
    /// Whether tokens share events where a stream's link is behind.
    pub coalesce_events: bool,
    /// Who may say which connection of a gateway carries a request.
    pub trusted_proxies: TrustedProxies,
    /// Who may ask.
    pub api_keys: ApiKeys,
    /// Whether `/` is a page to chat with.
    pub chat_page: bool,
    /// One permit per request whose long text is being worked on: half the processors, and never one request alone.
    long_texts: Arc<Semaphore>,
    started: u64,
}

impl ApiState {
    /// # Panics
    /// Without a served model name.
    pub fn new(engine: Engine, served_model_names: Vec<String>, model_root: String) -> Self {
        assert!(!served_model_names.is_empty(), "a served model has a name");
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            tokenizer: Arc::clone(engine.tokenizer()),
            engine,
            served_model_names,
            model_root,
            chat: ChatConfig::default(),
            stream_interval: 1,
            coalesce_events: true,
            trusted_proxies: TrustedProxies::default(),
            api_keys: ApiKeys::default(),
            chat_page: true,
            long_texts: Arc::new(Semaphore::new(processors.div_ceil(2).max(2))),
            started: unix_seconds(),
        }
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

    /// Does `work` on `bytes` of text without holding up other connections: where they are many, on a thread of its own, a few at once.
    ///
    /// # Errors
    /// What `work` returns, or 500 when it panicked.
    pub(super) async fn with_text<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce(&Tokenizer) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        if bytes <= INLINE_TEXT_BYTES {
            return work(&self.tokenizer);
        }
        let tokenizer = Arc::clone(&self.tokenizer);
        self.blocking(move || work(&tokenizer)).await?
    }

    /// Does `work` on a thread of its own, a few at once.
    ///
    /// # Errors
    /// 500 when it panicked.
    pub(super) async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
        let failed = |e: &dyn Display| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("The request could not be processed: {e}"));
        let permit = Arc::clone(&self.long_texts).acquire_owned().await.map_err(|e| failed(&e))?;
        let worked = tokio::task::spawn_blocking(move || {
            // A client that goes away does not stop the work, so the work holds the permit.
            let _permit = permit;
            work()
        });
        worked.await.map_err(|e| failed(&e))
    }
}

pub(super) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
