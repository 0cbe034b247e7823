//! The HTTP API: OpenAI's routes in vLLM's dialect, streamed as server-sent events or answered whole.
//!
//! Every refusal is one sentence in OpenAI's error shape that names the field. A request is cancelled when nobody waits for it:
//! handlers and response bodies own their generations, and hyper drops them with the connection.

mod access;
mod auth;
mod chat;
mod completions;
mod context;
mod embeddings;
mod error;
mod generation;
mod json_body;
mod messages;
mod models;
mod operations;
mod request_log;
mod responses;
pub mod server;
mod state;
pub mod tls;
mod tokenize;

use std::sync::Arc;

use axum::{
    Router, middleware,
    routing::{get, post},
};

pub use access::{AccessConfig, AccessError};
pub use auth::ApiKeys;
pub use chat::{ChatConfig, ReasoningParser, ToolCallParser};
pub use error::ApiError;
pub use state::ApiState;

/// All routes. The accept loop puts the socket's `Arc<health::Connection>` into the request's extensions; without it nothing is paced.
pub fn router(state: Arc<ApiState>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat::handle))
        .route("/v1/responses", post(responses::handle))
        .route("/v1/messages", post(messages::handle))
        .route("/v1/messages/count_tokens", post(messages::count_tokens))
        .route("/v1/completions", post(completions::handle))
        .route("/v1/embeddings", post(embeddings::handle))
        .route("/v1/models", get(models::list))
        .route("/tokenize", post(tokenize::tokenize))
        .route("/detokenize", post(tokenize::detokenize))
        .route("/health", get(operations::health))
        .route("/ping", get(operations::health).post(operations::health))
        .route("/version", get(operations::version))
        .route("/load", get(operations::load))
        .route("/metrics", get(operations::metrics))
        .fallback(error::unknown_route)
        .method_not_allowed_fallback(error::wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&state), auth::check))
        .layer(middleware::from_fn(context::with_request_id))
        .with_state(state)
}
