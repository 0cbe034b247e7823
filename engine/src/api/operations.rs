//! Routes for those who run the server: liveness, version, load, metrics.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{ApiError, ApiState};

/// 200 with an empty body while the engine runs, 503 after its thread died.
pub(super) async fn health(State(state): State<Arc<ApiState>>) -> Result<StatusCode, ApiError> {
    if state.engine.is_alive() {
        return Ok(StatusCode::OK);
    }
    Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "The engine has stopped; see the server's log"))
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Version {
    version: &'static str,
}

pub(super) async fn version() -> Json<Version> {
    Json(Version { version: env!("CARGO_PKG_VERSION") })
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Load {
    /// Generations that wait or run, as vLLM's name has it.
    server_load: usize,
}

pub(super) async fn load(State(state): State<Arc<ApiState>>) -> Json<Load> {
    Json(Load { server_load: state.engine.num_generations() })
}

pub(super) async fn metrics(State(state): State<Arc<ApiState>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.engine.metrics().render())
}
