use std::collections::HashSet;

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use serde_json::json;

use crate::{
    script::Gate,
    server::{post, read, says, start},
};

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
async fn prompts_without_a_seed_get_one_each_and_a_given_seed_is_kept() {
    let server = says("x");
    let seeds = async |fields: serde_json::Value| {
        let mut body = json!({"prompt": ["one", "two", "three"]});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        server.post("/v1/completions", body).await;
        std::mem::take(&mut *server.seeds.lock().unwrap())
    };
    let mut drawn = seeds(json!({})).await;
    drawn.extend(seeds(json!({"seed": null})).await);
    server.post("/v1/chat/completions", json!({"messages": [{"role": "user", "content": "one"}]})).await;
    drawn.append(&mut server.seeds.lock().unwrap());
    assert_eq!(drawn.len(), 7);
    assert_eq!(drawn.iter().collect::<HashSet<_>>().len(), 7, "{drawn:?}");
    for seed in [7, -7, i64::MAX] {
        assert_eq!(seeds(json!({"seed": seed})).await, [seed as u64; 3]);
    }
}

#[tokio::test]
async fn load_counts_what_waits_or_runs() {
    let server = start("x", Gate::closed(), None);
    let load = async || server.get("/load").await.1;
    assert_eq!(load().await, r#"{"server_load":0}"#);
    let response = server.send(post("/v1/completions", json!({"prompt": ["p", "q"], "stream": true}).to_string())).await;
    assert_eq!(load().await, r#"{"server_load":2}"#);
    drop(response);
    assert_eq!(load().await, r#"{"server_load":0}"#);
}
