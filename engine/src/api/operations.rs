//! Routes for those who run the server: liveness, version, load, metrics.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use serde_json::{Value, json};

use super::{ApiError, ApiState};

/// 200 with an empty body while the engine runs, 503 after its thread died.
pub(super) async fn health(State(state): State<Arc<ApiState>>) -> Result<StatusCode, ApiError> {
    if state.engine.is_alive() {
        return Ok(StatusCode::OK);
    }
    Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "The engine has stopped; see the server's log"))
}

pub(super) async fn version() -> Json<Value> {
    Json(json!({"version": env!("CARGO_PKG_VERSION")}))
}

/// Generations that wait or run, as vLLM's name has it.
pub(super) async fn load(State(state): State<Arc<ApiState>>) -> Json<Value> {
    Json(json!({"server_load": state.engine.num_generations()}))
}

pub(super) async fn metrics(State(state): State<Arc<ApiState>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.engine.metrics().render())
}
