//! What a stream's health comes from: the request's own word, and a gateway's hint server where a proxy names the client's connection.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{StatusCode, header},
    routing::get,
};
use futures_util::stream;
use serde_json::{Value, json};
use tokenflow_engine::api::{ProxyHeader, TrustedProxies};
use tokenflow_hint_api::{Hint, HintEvent, HintMetrics, HintUrl, RemoteConnection, Source};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    script::Gate,
    server::{Server, start, start_hinted},
    slow_readers::serving,
};

const CLIENT: &str = "198.51.100.7:4444";

/// Status, and the health in each chunk or the error.
async fn ask(address: SocketAddr, headers: &str, fields: Value) -> (u16, Vec<f64>, Value) {
    let mut body = json!({"prompt": "p", "max_tokens": 5, "stream": true, "stream_options": {"include_health": true}});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let body = body.to_string();
    let mut client = TcpStream::connect(address).await.unwrap();
    let head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n";
    client.write_all(format!("{head}{headers}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let chunks = body.lines().filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
    let healths = chunks.map(|chunk| chunk["tokenflow"]["health"].as_f64().unwrap()).collect();
    (status, healths, serde_json::from_str(body).unwrap_or_default())
}

#[tokio::test]
async fn a_request_may_ask_for_less_than_was_measured() {
    let server = start("one two three", Gate::open(), None);
    let address = serving(server.router.clone()).await;
    for (fields, health) in [
        (json!({"vllm_xargs": {"health_factor": 0.5, "other": "x"}}), 0.5),
        (json!({"health_factor": 0.25}), 0.25),
        (json!({"health_factor": 0.9, "vllm_xargs": {"health_factor": 0.75}}), 0.75),
        (json!({"health_factor": 1, "vllm_xargs": null}), 1.0),
        (json!({"health_factor": null}), 1.0),
    ] {
        let (status, healths, _) = ask(address, "", fields.clone()).await;
        assert!(status == 200 && !healths.is_empty() && healths.iter().all(|&h| h == health), "{fields}: {healths:?}");
    }
}

#[tokio::test]
async fn what_is_no_health_and_no_round_trip_is_refused() {
    let server = start("one two three", Gate::open(), None);
    let address = serving(server.router.clone()).await;
    for (headers, fields, param) in [
        ("", json!({"health_factor": 1.5}), "health_factor"),
        ("", json!({"health_factor": "x"}), "health_factor"),
        ("", json!({"vllm_xargs": {"health_factor": -0.1}}), "vllm_xargs.health_factor"),
        ("x-client-rtt: soon\r\n", json!({}), "X-Client-RTT"),
        ("x-client-rtt: nan\r\n", json!({}), "X-Client-RTT"),
        ("x-client-rtt: -1\r\n", json!({}), "X-Client-RTT"),
    ] {
        let (status, _, error) = ask(address, headers, fields.clone()).await;
        assert_eq!((status, error["error"]["param"].as_str()), (400, Some(param)), "{headers}{fields}: {error}");
        assert_eq!(error["error"]["type"], "BadRequestError");
    }
}

/// A hint server that knows one client of another host's gateway, in trouble.
async fn hint_server() -> HintUrl {
    let remote = RemoteConnection {
        peer: CLIENT.parse().unwrap(),
        health: 0.3,
        min_rtt_us: 20_000,
        undelivered_bytes: 0,
        delivery_rate_bytes_per_s: Some(50_000),
    };
    let hint = Hint {
        health_factor: 1.0,
        health: 1.0,
        token_rate: None,
        metrics: HintMetrics::default(),
        source: Source::Ebpf,
        connections: 0,
        age_ms: 0,
        seq: 1,
    };
    let event = HintEvent { hint, changed: Vec::new(), removed: Vec::new(), remote: vec![remote], remote_removed: Vec::new() };
    let event = format!("event: snapshot\ndata: {}\n\n", serde_json::to_string(&event).unwrap());
    let handler = move || {
        // Again and again, which keeps it fresh.
        let events = stream::unfold(event.clone(), |event| async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Some((Ok::<_, Infallible>(event.clone()), event))
        });
        std::future::ready(([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async { axum::serve(listener, Router::new().route("/hint/stream", get(handler))).await });
    url
}

async fn hinted() -> Server {
    let server = start_hinted("one two three", Gate::open(), hint_server().await);
    server.wait_for_metric(r#"tokenflow:hint_connected{engine="0",model_name="q"}"#, "1").await;
    server
}

#[tokio::test]
async fn a_stream_behind_a_proxy_has_the_health_of_the_clients_connection_to_it() {
    let mut server = hinted().await;
    let named = [
        (ProxyHeader::Forwarded, format!("forwarded: for=\"203.0.113.1:1\", for=\"{CLIENT}\"\r\n")),
        (ProxyHeader::XForwardedFor, format!("x-forwarded-for: 203.0.113.1:1, {CLIENT}, 127.0.0.9\r\n")),
        (ProxyHeader::XTokenFlowConnection, format!("x-tokenflow-connection: {CLIENT}\r\n")),
    ];
    let address = serving(server.router.clone()).await;
    for (_, headers) in &named {
        let (status, healths, _) = ask(address, headers, json!({})).await;
        assert!(status == StatusCode::OK && healths.iter().all(|&h| h == 1.0), "believed from nobody: {headers}{healths:?}");
    }
    let mut address = address;
    for (written, _) in &named {
        server.configure(|state| state.trusted_proxies = TrustedProxies::new(vec!["127.0.0.0/8".parse().unwrap()], *written));
        address = serving(server.router.clone()).await;
        for (by, headers) in &named {
            let (_, healths, _) = ask(address, headers, json!({})).await;
            let expected = if by == written { 0.3 } else { 1.0 };
            assert!(!healths.is_empty() && healths.iter().all(|&h| h == expected), "{headers}{healths:?}");
        }
    }
    let (_, healths, _) = ask(address, &named[2].1, json!({"health_factor": 0.1})).await;
    assert!(healths.iter().all(|&h| h == 0.1), "{healths:?}");
    // A client that the gateway's hint server says nothing of is well, unless it says otherwise itself.
    let unknown = "x-tokenflow-connection: 198.51.100.8:1\r\n";
    assert!(ask(address, unknown, json!({})).await.1.iter().all(|&h| h == 1.0));
    let (_, healths, _) = ask(address, &format!("{unknown}x-client-rtt: 800\r\n"), json!({})).await;
    assert!(!healths.is_empty() && healths.iter().all(|&h| h == 0.5), "{healths:?}");
}
