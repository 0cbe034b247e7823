//! A server over a real, tiny model, for what depends on how tokens are chosen.

use std::{path::Path, sync::Arc};

use axum::http::StatusCode;
use serde_json::{Value, json};
use tokenflow_engine::{
    Engine, EngineConfig,
    api::{self, ApiState},
    tokenizer::Tokenizer,
};
use tower::ServiceExt;

use crate::server::{events, post, read};

pub struct ModelServer {
    router: axum::Router,
    pub tokenizer: Arc<Tokenizer>,
    pub engine: Engine,
}

impl ModelServer {
    /// Serves the fixture of Qwen3's architecture: random weights, 1,024 tokens.
    pub fn start() -> Self {
        Self::with(|_| ())
    }

    /// The same with a configuration of its own.
    pub fn with(change: impl FnOnce(&mut EngineConfig)) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/qwen3");
        let mut config = EngineConfig { threads: 1, ..EngineConfig::new(folder) };
        change(&mut config);
        let engine = Engine::load(config).unwrap();
        let state = ApiState::new(engine.clone(), vec!["q".to_owned()], "q".to_owned());
        Self { router: api::router(Arc::new(state)), tokenizer: Arc::clone(engine.tokenizer()), engine }
    }

    async fn send(&self, path: &str, body: &Value) -> String {
        let response = self.router.clone().oneshot(post(path, body.to_string())).await.unwrap();
        let (status, text) = read(response).await;
        assert_eq!(status, StatusCode::OK, "{body}: {text}");
        text
    }

    /// A completion of `Say` unless the fields have another prompt.
    pub async fn complete(&self, fields: Value) -> Value {
        let mut body = json!({"prompt": "Say", "max_tokens": 12});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        serde_json::from_str(&self.send("/v1/completions", &body).await).unwrap()
    }

    /// The same as a stream; its chunks without `[DONE]`.
    pub async fn stream(&self, mut fields: Value) -> Vec<Value> {
        fields["stream"] = json!(true);
        let mut body = json!({"prompt": "Say", "max_tokens": 12});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let mut events = events(&self.send("/v1/completions", &body).await);
        assert_eq!(events.pop(), Some(json!("[DONE]")));
        events
    }

    /// A chat of one message.
    pub async fn chat(&self, fields: Value) -> Value {
        let mut body = json!({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 12});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        serde_json::from_str(&self.send("/v1/chat/completions", &body).await).unwrap()
    }
}

pub fn texts(answer: &Value) -> Vec<&str> {
    answer["choices"].as_array().unwrap().iter().map(|choice| choice["text"].as_str().unwrap()).collect()
}
