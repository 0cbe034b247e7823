//! Clients that read late, or go away, in memory and over TCP.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body, http::Response, middleware::map_response};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokenflow_engine::{api::server::serve, health::StreamMeter};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
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
    serving(server.router.clone()).await
}

pub async fn serving(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, None, router, std::future::pending(), Duration::ZERO, || ()));
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

/// What a client that reads nothing for a while gets in the end: its text, and the number of its events.
async fn read_late(server: &Server, events_may_merge: bool) -> (String, usize) {
    let (sender, mut meters) = tokio::sync::mpsc::unbounded_channel();
    let router = server.router.clone().layer(map_response(move |response: Response<Body>| {
        let meters: &Vec<Arc<StreamMeter>> = response.extensions().get().expect("a metered stream");
        sender.send(meters[0].clone()).unwrap();
        std::future::ready(response)
    }));
    let socket = TcpSocket::new_v4().unwrap();
    // As little as the kernel gives.
    socket.set_recv_buffer_size(1).unwrap();
    let mut client = socket.connect(serving(router).await).await.unwrap();
    let body = json!({"prompt": "p", "max_tokens": 100, "stream": true, "logprobs": 0}).to_string();
    let head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n";
    client.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await.unwrap();
    let meter = meters.recv().await.unwrap();
    for _ in 0..80 {
        server.gate.allow(1);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(meter.connection().is_behind(), events_may_merge, "{} bytes wait", meter.undelivered_bytes());
    server.gate.allow(100);
    server.wait_for_metric(r#"vllm:e2e_request_latency_seconds_count{engine="0",model_name="q"}"#, "1").await;
    let mut received = Vec::new();
    client.read_to_end(&mut received).await.unwrap();
    let wire = String::from_utf8(received).unwrap();
    let events: Vec<Value> = wire
        .lines()
        .filter_map(|line| line.strip_prefix("data: ").filter(|data| *data != "[DONE]"))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    let tokens: usize = events.iter().map(|e| e["choices"][0]["logprobs"]["tokens"].as_array().unwrap().len()).sum();
    assert_eq!(tokens, 100);
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "length");
    (events.iter().map(|e| e["choices"][0]["text"].as_str().unwrap()).collect(), events.len())
}

#[tokio::test]
async fn tokens_share_events_where_the_socket_takes_no_more_and_nothing_is_lost() {
    let reply = "one two three ".repeat(60);
    let coalesced = r#"tokenflow:coalesced_tokens_total{engine="0",model_name="q"}"#;
    let server = start(&reply, Gate::closed(), None);
    let (text, events) = read_late(&server, true).await;
    assert!(events < 90, "{events} events for 100 tokens");
    server.wait_for_metric(coalesced, &(100 - events).to_string()).await;

    let mut server = start(&reply, Gate::closed(), None);
    server.configure(|state| state.coalesce_events = false);
    assert_eq!(read_late(&server, false).await, (text, 100), "the same text, each token alone");
    server.wait_for_metric(coalesced, "0").await;
}

/// What one streamed answer weighed on the wire, head aside, and what its meters counted.
async fn weighed(server: &Server, body: &str) -> (u64, u64) {
    let (sender, mut meters) = tokio::sync::mpsc::unbounded_channel();
    let router = server.router.clone().layer(map_response(move |response: Response<Body>| {
        let meters: &Vec<Arc<StreamMeter>> = response.extensions().get().expect("a metered stream");
        sender.send(meters.clone()).unwrap();
        std::future::ready(response)
    }));
    let mut client = ask(serving(router).await, body).await;
    let mut received = Vec::new();
    client.read_to_end(&mut received).await.unwrap();
    let text = String::from_utf8(received).unwrap();
    let (head, wire) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.to_ascii_lowercase().contains("transfer-encoding: chunked"), "{head}");
    assert!(wire.contains("data: [DONE]\n\n"), "{wire}");
    let meters = meters.recv().await.unwrap();
    (wire.len() as u64, meters.iter().map(|meter| meter.produced_bytes()).sum())
}

#[tokio::test]
async fn bytes_on_the_wire_are_the_bytes_counted() {
    // The chunk of length zero that ends a body belongs to no stream.
    const LAST_CHUNK: u64 = b"0\r\n\r\n".len() as u64;
    for (prompts, logprobs) in [(json!("p"), json!(null)), (json!("p"), json!(20)), (json!(["p", "q", "r"]), json!(1))] {
        let server = start(&"one two ".repeat(20), Gate::open(), None);
        let body = json!({"prompt": prompts, "max_tokens": 100, "stream": true, "logprobs": logprobs}).to_string();
        let (wire, counted) = weighed(&server, &body).await;
        assert_eq!(wire, counted + LAST_CHUNK, "{body}");
    }
    // An answer that breaks off is counted to its last byte too.
    let (wire, counted) = weighed(&start("one two three", Gate::open(), Some(2)), &body(true)).await;
    assert_eq!(wire, counted + LAST_CHUNK);
}
