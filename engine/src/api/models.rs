//! `GET /v1/models`.

use std::sync::Arc;

use axum::{Json, extract::State};
use schemars::JsonSchema;
use serde::Serialize;

use super::{ApiState, openapi::Operation};

#[derive(Serialize, JsonSchema)]
pub(super) struct ModelList {
    object: &'static str,
    data: Vec<ModelCard>,
}

/// One of the model's names.
#[derive(Serialize, JsonSchema)]
struct ModelCard {
    id: String,
    object: &'static str,
    /// When the server started, in seconds since 1970.
    created: u64,
    owned_by: &'static str,
    /// Where the model came from.
    root: String,
    parent: Option<String>,
    max_model_len: usize,
}

pub(super) fn describe() -> Operation {
    Operation::get("The names that requests may use").gives::<ModelList>("ModelList")
}

pub(super) async fn list(State(state): State<Arc<ApiState>>) -> Json<ModelList> {
    let card = |id: &String| ModelCard {
        id: id.clone(),
        object: "model",
        created: state.started(),
        owned_by: "tokenflow",
        root: state.model_root.clone(),
        parent: None,
        max_model_len: state.engine.info().max_model_len,
    };
    Json(ModelList { object: "list", data: state.served_model_names.iter().map(card).collect() })
}
