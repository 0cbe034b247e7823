//! Queues, deadlines and shared prompts, as clients see them.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, Request, StatusCode, header},
};
use serde_json::{Value, json};

use crate::{
    script::Gate,
    server::{events, post, read, start, start_with},
};

const RUNNING: &str = r#"vllm:num_requests_running{engine="0",model_name="q"}"#;
const WAITING: &str = r#"vllm:num_requests_waiting{engine="0",model_name="q"}"#;
const TENANT_CAPPED: &str = r#"tokenflow:tenant_capped_requests{engine="0",model_name="q"}"#;
const KV_USAGE: &str = r#"vllm:kv_cache_usage_perc{engine="0",model_name="q"}"#;
const ABORTED: &str = r#"vllm:request_success_total{engine="0",finished_reason="abort",model_name="q"}"#;
const HITS: &str = r#"vllm:prefix_cache_hits_total{engine="0",model_name="q"}"#;
const QUERIES: &str = r#"vllm:prefix_cache_queries_total{engine="0",model_name="q"}"#;

fn body(stream: bool) -> String {
    json!({"prompt": "p", "max_tokens": 100, "stream": stream}).to_string()
}

fn with_timeout(seconds: &str, stream: bool) -> Request<Body> {
    let mut request = post("/v1/completions", body(stream));
    request.headers_mut().insert("x-request-timeout", seconds.parse().unwrap());
    request
}

fn error(text: &str) -> Value {
    serde_json::from_str::<Value>(text).unwrap()["error"].clone()
}

#[tokio::test]
async fn a_request_too_many_is_refused_before_its_stream_begins() {
    let server = start_with("one two three", Gate::closed(), None, |config, _| {
        config.max_num_seqs = 1;
        config.max_waiting = Some(1);
    });
    let send = async || server.send(post("/v1/completions", body(true))).await;
    let (runs, waits, refused) = (send().await, send().await, send().await);
    assert_eq!((runs.status(), waits.status()), (StatusCode::OK, StatusCode::OK));
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    let retry_after = |headers: &HeaderMap| headers[header::RETRY_AFTER].to_str().unwrap().parse::<u64>().unwrap();
    assert!((1..=300).contains(&retry_after(refused.headers())));
    let error = error(&read(refused).await.1);
    assert_eq!((&error["type"], &error["code"]), (&json!("ServiceUnavailableError"), &json!(503)));
    assert!(error["message"].as_str().unwrap().contains("queue is full"), "{error}");

    server.gate.set_open(true);
    for accepted in [runs, waits] {
        let text = read(accepted).await.1;
        assert!(!text.contains("error") && text.ends_with("data: [DONE]\n\n"), "{text}");
    }
    assert_eq!(server.post_raw("/v1/completions", body(false)).await.0, StatusCode::OK, "there is room again");
}

#[tokio::test]
async fn more_answers_than_ever_fit_are_refused_for_good() {
    let server = start_with("one", Gate::open(), None, |config, _| {
        config.max_num_seqs = 2;
        config.max_waiting = Some(1);
    });
    for prompt in [json!("p"), json!(["p", "q"])] {
        let n = if prompt.is_array() { 2 } else { 4 };
        let (status, text) = server.post_raw("/v1/completions", json!({"prompt": prompt, "n": n, "temperature": 1}).to_string()).await;
        assert_eq!((status, &error(&text)["param"]), (StatusCode::BAD_REQUEST, &json!("n")), "{text}");
        let message = "The request asks for 4 answers, but this server runs and queues at most 3 at a time";
        assert_eq!(error(&text)["message"], message);
    }
    let fits = json!({"prompt": "p", "n": 3, "temperature": 1}).to_string();
    assert_eq!(server.post_raw("/v1/completions", fits).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_tenants_excess_waits_while_others_run() {
    let server = start_with("one two three", Gate::closed(), None, |config, _| {
        config.caps.tenant.max_seqs = Some(1);
    });
    let send = async |tenant: Option<&str>, user: Option<&str>| {
        let body = json!({"prompt": "p", "max_tokens": 3, "stream": true, "user": user});
        let mut request = post("/v1/completions", body.to_string());
        tenant.into_iter().for_each(|tenant| drop(request.headers_mut().insert("x-tenant", tenant.parse().unwrap())));
        server.send(request).await
    };
    let asked = [
        send(Some("a"), None).await,
        send(Some("a"), Some("b")).await,
        send(None, Some("a")).await,
        send(None, Some("b")).await,
        send(None, None).await,
        send(None, Some("")).await,
    ];
    server.gate.allow(2);
    server.wait_for_metric(RUNNING, "3").await;
    server.wait_for_metric(WAITING, "3").await;
    server.wait_for_metric(TENANT_CAPPED, "3").await;
    server.gate.set_open(true);
    for response in asked {
        let (status, text) = read(response).await;
        assert!(status == StatusCode::OK && text.ends_with("data: [DONE]\n\n") && !text.contains("error"), "{text}");
    }
}

#[tokio::test]
async fn a_request_past_its_deadline_ends_with_an_error_and_frees_its_blocks() {
    for stream in [false, true] {
        let server = start(&"word ".repeat(100), Gate::closed(), None);
        let router = server.router.clone();
        let asked =
            tokio::spawn(async move { read(tower::ServiceExt::oneshot(router, with_timeout("0.001", stream)).await.unwrap()).await });
        tokio::time::sleep(Duration::from_millis(5)).await;
        server.gate.allow(1);
        let (status, text) = asked.await.unwrap();
        if stream {
            assert_eq!(status, StatusCode::OK);
            assert!(text.contains("TimeoutError") && text.ends_with("data: [DONE]\n\n"), "{text}");
        } else {
            assert_eq!(status, StatusCode::GATEWAY_TIMEOUT, "{text}");
            assert_eq!(error(&text)["type"], "TimeoutError");
        }
        server.wait_for_metric(ABORTED, "1").await;
        server.wait_for_metric(RUNNING, "0").await;
        server.wait_for_metric(KV_USAGE, "0").await;
    }
}

#[tokio::test]
async fn a_timeout_that_is_no_time_is_refused() {
    let server = start("x", Gate::open(), None);
    for bad in ["0", "-1", "soon", "nan", "inf", ""] {
        let (status, text) = read(server.send(with_timeout(bad, false)).await).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{bad}: {text}");
        assert_eq!(error(&text)["param"], "X-Request-Timeout");
    }
    assert_eq!(read(server.send(with_timeout("60", false)).await).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_cancelled_request_frees_its_blocks_within_one_step() {
    let server = start(&"word ".repeat(100), Gate::closed(), None);
    let response = server.send(post("/v1/completions", body(true))).await;
    // One step has begun and is held up when the client goes away: no further one may be needed.
    tokio::time::sleep(Duration::from_millis(5)).await;
    drop(response);
    server.gate.allow(1);
    server.wait_for_metric(ABORTED, "1").await;
    server.wait_for_metric(RUNNING, "0").await;
    server.wait_for_metric(KV_USAGE, "0").await;
}

#[tokio::test]
async fn a_prompt_that_came_before_is_found_and_counted() {
    let server = start("yes", Gate::open(), None);
    let prompt: Vec<u32> = (10..60).collect();
    let ask = |salt: Option<&'static str>| json!({"prompt": prompt, "max_tokens": 2, "cache_salt": salt});
    server.post("/v1/completions", ask(None)).await;
    server.wait_for_metric(QUERIES, "50").await;
    server.wait_for_metric(HITS, "0").await;
    server.post("/v1/completions", ask(None)).await;
    server.wait_for_metric(QUERIES, "100").await;
    server.wait_for_metric(HITS, "48").await;
}

#[tokio::test]
async fn tokens_share_chunks_where_the_interval_says_so() {
    let mut server = start("one two three four five six seven", Gate::open(), None);
    server.set_stream_interval(3);
    let usage = json!({"include_usage": true, "continuous_usage_stats": true});
    let body = json!({"prompt": "p", "max_tokens": 8, "ignore_eos": true, "stream": true, "stream_options": usage});
    let (_, text) = server.post_raw("/v1/completions", body.to_string()).await;
    let mut events = events(&text);
    assert_eq!(events.pop(), Some(json!("[DONE]")));
    let counts: Vec<u64> = events.iter().map(|event| event["usage"]["completion_tokens"].as_u64().unwrap()).collect();
    assert_eq!(counts, [1, 4, 7, 8, 8], "the first at once, then three at a time, the rest with the end, then the usage");
}
