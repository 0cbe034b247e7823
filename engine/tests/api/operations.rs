use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use serde_json::json;

use crate::server::{post, read, says};

#[tokio::test]
async fn models_are_listed_by_every_name() {
    let (status, text) = says("").get("/v1/models").await;
    assert_eq!(status, StatusCode::OK);
    let list: serde_json::Value = serde_json::from_str(&text).unwrap();
    let ids: Vec<_> = list["data"].as_array().unwrap().iter().map(|card| card["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["q", "alias"]);
    assert_eq!(list["data"][0]["max_model_len"], 128);
    assert_eq!(list["data"][0]["root"], "models/q");
}

#[tokio::test]
async fn an_alias_is_answered_by_its_name_and_no_name_by_the_first() {
    let server = says("x");
    assert_eq!(server.post("/v1/completions", json!({"model": "alias", "prompt": "p"})).await["model"], "alias");
    assert_eq!(server.post("/v1/completions", json!({"prompt": "p"})).await["model"], "q");
}

#[tokio::test]
async fn liveness_and_version_answer() {
    let server = says("");
    assert_eq!(server.get("/health").await, (StatusCode::OK, String::new()));
    assert_eq!(server.get("/ping").await, (StatusCode::OK, String::new()));
    assert_eq!(server.post_raw("/ping", "").await, (StatusCode::OK, String::new()));
    let (_, version) = server.get("/version").await;
    assert_eq!(version, format!(r#"{{"version":"{}"}}"#, env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn metrics_count_what_was_served() {
    let server = says("one two three");
    let usage = server.post("/v1/completions", json!({"prompt": "p"})).await["usage"].clone();
    let labels = r#"{engine="0",model_name="q"}"#;
    server.wait_for_metric(&format!("vllm:generation_tokens_total{labels}"), &usage["completion_tokens"].to_string()).await;
    server.wait_for_metric(&format!("vllm:prompt_tokens_total{labels}"), &usage["prompt_tokens"].to_string()).await;
    server.wait_for_metric(&format!("vllm:e2e_request_latency_seconds_count{labels}"), "1").await;
    server.wait_for_metric(&format!("vllm:num_requests_running{labels}"), "0").await;
    let response = server.send(Request::get("/metrics").body(Body::empty()).unwrap()).await;
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    assert!(read(response).await.1.contains("# TYPE vllm:generation_tokens_total counter"));
}

#[tokio::test]
async fn a_request_id_comes_back_and_names_the_answer() {
    let server = says("x");
    let mut request = post("/v1/completions", json!({"prompt": "p"}).to_string());
    request.headers_mut().insert("x-request-id", "mine-42".parse().unwrap());
    let response = server.send(request).await;
    assert_eq!(response.headers()["x-request-id"], "mine-42");
    let answer: serde_json::Value = serde_json::from_str(&read(response).await.1).unwrap();
    assert_eq!(answer["id"], "cmpl-mine-42");

    let response = server.send(Request::get("/nowhere").header("x-request-id", "two words").body(Body::empty()).unwrap()).await;
    let made = response.headers()["x-request-id"].to_str().unwrap();
    assert_eq!(made.len(), 32);
}

#[tokio::test]
async fn requests_without_a_seed_get_different_ones_and_those_with_one_keep_it() {
    // The scripted executor ignores seeds; what matters here is that both forms are accepted.
    let server = says("x");
    for seed in [json!(null), json!(7), json!(-7), json!(i64::MAX)] {
        server.post("/v1/completions", json!({"prompt": "p", "seed": seed})).await;
    }
}
