//! The HTTP API: OpenAI's routes in vLLM's dialect and Anthropic's messages, streamed as server-sent events or answered whole.
//!
//! Every refusal is one sentence that names the field, in the error shape of the route's own API. A request is cancelled when nobody waits for it:
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
mod openapi;
mod operations;
mod page;
mod proxy;
mod request_log;
mod responses;
mod routes;
pub mod server;
mod state;
pub mod tls;
mod tokenize;

use std::sync::Arc;

use axum::{Router, middleware};

pub use access::{AccessConfig, AccessError};
pub use auth::ApiKeys;
pub use chat::{ChatConfig, ReasoningParser, ToolCallParser};
pub use error::ApiError;
pub use proxy::{Cidr, CidrError, ProxyHeader, TrustedProxies};
pub use state::ApiState;

/// All routes. The accept loop puts the socket's `Arc<health::Connection>` into the request's extensions; without it
/// nothing is known of the link, which counts as healthy.
pub fn router(state: Arc<ApiState>) -> Router {
    let page = if state.chat_page { page::routes() } else { Router::new() };
    let routes = routes::routes().into_iter();
    routes
        .fold(page, |router, route| router.route(route.path, route.methods))
        .fallback(error::unknown_route)
        .method_not_allowed_fallback(error::wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&state), auth::check))
        .layer(middleware::from_fn(context::with_request_id))
        .with_state(state)
}
