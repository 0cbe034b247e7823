//! Every route, once: from this list the router is made and the OpenAPI document too.

use axum::routing::{get, post};

use super::{
    chat, completions, embeddings, messages, models,
    openapi::{self, Errors, Operation, Route},
    operations, responses, tokenize,
};

pub(super) fn routes() -> Vec<Route> {
    let route = |path, methods, operations| Route { path, methods, operations };
    let alive = |summary| Operation::get(summary).fails(Errors::Unavailable);
    vec![
        route("/v1/chat/completions", post(chat::handle), vec![chat::describe()]),
        route("/v1/responses", post(responses::handle), vec![responses::describe()]),
        route("/v1/messages", post(messages::handle), vec![messages::describe()]),
        route("/v1/messages/count_tokens", post(messages::count_tokens), vec![messages::describe_count()]),
        route("/v1/completions", post(completions::handle), vec![completions::describe()]),
        route("/v1/embeddings", post(embeddings::handle), vec![embeddings::describe()]),
        route("/v1/models", get(models::list), vec![models::describe()]),
        route("/tokenize", post(tokenize::tokenize), vec![tokenize::describe_tokenize()]),
        route("/detokenize", post(tokenize::detokenize), vec![tokenize::describe_detokenize()]),
        route("/health", get(operations::health), vec![alive("Whether the engine lives")]),
        route(
            "/ping",
            get(operations::health).post(operations::health),
            vec![alive("Whether the engine lives"), Operation::post("Whether the engine lives").fails(Errors::Unavailable)],
        ),
        route("/version", get(operations::version), vec![Operation::get("The server's version").gives::<operations::Version>("Version")]),
        route("/load", get(operations::load), vec![Operation::get("Generations that wait or run").gives::<operations::Load>("Load")]),
        route("/metrics", get(operations::metrics), vec![Operation::get("Metrics for Prometheus").gives_text("text/plain")]),
        route("/openapi.json", get(openapi::serve), vec![Operation::get("This document").gives::<serde_json::Value>("Document")]),
    ]
}
