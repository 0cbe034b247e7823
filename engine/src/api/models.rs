//! `GET /v1/models`.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::ApiState;

pub(super) async fn list(State(state): State<Arc<ApiState>>) -> Json<Value> {
    let max_model_len = state.engine.info().max_model_len;
    let card = |name: &String| {
        json!({
            "id": name, "object": "model", "created": state.started(), "owned_by": "tokenflow",
            "root": state.model_root, "parent": null, "max_model_len": max_model_len,
        })
    };
    Json(json!({"object": "list", "data": state.served_model_names.iter().map(card).collect::<Vec<_>>()}))
}
