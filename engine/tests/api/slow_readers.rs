//! Clients that read late, or go away, in memory and over TCP.

use std::{net::SocketAddr, time::Duration};

use futures_util::FutureExt;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokenflow_engine::api::server::serve;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    script::Gate,
    server::{Server, frame, post, start},
};

const ABORTED: &str = r#"vllm:request_success_total{engine="0",finished_reason="abort",model_name="q"}"#;
const RUNNING: &str = r#"vllm:num_requests_running{engine="0",model_name="q"}"#;

fn body(stream: bool) -> String {
    json!({"prompt": "p", "max_tokens": 100, "stream": stream, "logprobs": 1}).to_string()
}

#[tokio::test]
async fn each_token_is_sent_alone_while_the_reader_keeps_up() {
    let server = start("one two three four five", Gate::closed(), None);
    let mut response = server.send(post("/v1/completions", body(true))).await;
    assert!(response.body_mut().frame().now_or_never().is_none());
    for _ in 0..4 {
        server.gate.allow(1);
        let events = frame(&mut response).await.unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!(events[0]["choices"][0]["logprobs"]["tokens"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn what_a_late_reader_missed_is_all_there_at_the_first_look() {
    let server = start("one two three four five", Gate::open(), None);
    let mut response = server.send(post("/v1/completions", body(true))).await;
    server.wait_for_metric(r#"vllm:e2e_request_latency_seconds_count{engine="0",model_name="q"}"#, "1").await;
    let mut events = frame(&mut response).await.unwrap();
    assert_eq!(events.pop(), Some(Value::String("[DONE]".to_owned())));
    let tokens = server.tokenizer.encode("one two three four five", false).unwrap().len() + 1;
    assert_eq!(events.len(), tokens);
    assert_eq!(events.iter().map(|e| e["choices"][0]["text"].as_str().unwrap()).collect::<String>(), "one two three four five");
    assert_eq!(events[tokens - 1]["choices"][0]["finish_reason"], "stop");
    assert!(frame(&mut response).await.is_none());
}

#[tokio::test]
async fn dropping_a_streams_body_cancels_it() {
    let server = start(&"word ".repeat(100), Gate::closed(), None);
    let mut response = server.send(post("/v1/completions", body(true))).await;
    server.gate.allow(2);
    frame(&mut response).await.unwrap();
    drop(response);
    server.gate.allow(1);
    server.wait_for_metric(ABORTED, "1").await;
    server.wait_for_metric(RUNNING, "0").await;
}

async fn over_tcp(server: &Server) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = server.router.clone();
    tokio::spawn(serve(listener, router, std::future::pending(), Duration::ZERO, || ()));
    address
}

async fn ask(address: SocketAddr, body: &str) -> TcpStream {
    let mut client = TcpStream::connect(address).await.unwrap();
    let head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n";
    client.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await.unwrap();
    client
}

/// One step at a time, so that the answer cannot be complete before the hang-up is noticed.
async fn step_until_aborted(server: &Server) {
    for _ in 0..90 {
        if server.metrics.render().contains(&format!("{ABORTED} 1")) {
            return;
        }
        server.gate.allow(1);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the request went on");
}

#[tokio::test]
async fn a_client_that_hangs_up_cancels_its_stream() {
    let server = start(&"word ".repeat(100), Gate::closed(), None);
    let mut client = ask(over_tcp(&server).await, &body(true)).await;
    server.gate.allow(2);
    let mut received = [0; 64];
    client.read_exact(&mut received).await.unwrap();
    drop(client);
    step_until_aborted(&server).await;
}

#[tokio::test]
async fn a_client_that_hangs_up_cancels_an_answer_in_one_piece() {
    let server = start(&"word ".repeat(100), Gate::closed(), None);
    let client = ask(over_tcp(&server).await, &body(false)).await;
    server.gate.allow(2);
    server.wait_for_metric(RUNNING, "1").await;
    drop(client);
    step_until_aborted(&server).await;
}

#[tokio::test]
async fn bytes_on_the_wire_are_the_bytes_counted() {
    let server = start("one two", Gate::open(), None);
    let mut client = ask(over_tcp(&server).await, &body(true)).await;
    let mut received = Vec::new();
    client.read_to_end(&mut received).await.unwrap();
    let text = String::from_utf8(received).unwrap();
    let (head, chunks) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.to_ascii_lowercase().contains("transfer-encoding: chunked"), "{head}");
    // hex size, line end, data, line end: what the API counts for every frame.
    let (size, rest) = chunks.split_once("\r\n").unwrap();
    let size_bytes = usize::from_str_radix(size, 16).unwrap();
    assert!(rest.as_bytes()[size_bytes..].starts_with(b"\r\n"));
    assert!(text.ends_with("data: [DONE]\n\n\r\n0\r\n\r\n"));
}
