//! A server that plays a script to whoever asks, and the client's binary run against it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What is done with one connection after its request was read.
#[derive(Clone, Debug)]
pub enum Step {
    Send(Vec<u8>),
    Wait(Duration),
    /// Until the client is gone.
    Hold,
}

/// Plays the script of a route, the same for everyone who asks, and remembers what was asked.
pub struct FakeServer {
    pub address: SocketAddr,
    pub requests: Arc<Mutex<Vec<String>>>,
}

impl FakeServer {
    /// `routes`: the beginning of a request line, and what to do then. Anything else is a 404 in plain text.
    pub fn start(routes: Vec<(&'static str, Vec<Step>)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, routes, seen) = (stream.unwrap(), routes.clone(), Arc::clone(&seen));
                std::thread::spawn(move || serve(stream, &routes, &seen));
            }
        });
        Self { address, requests }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The body of the last chat request.
    pub fn asked(&self) -> serde_json::Value {
        let requests = self.requests.lock().unwrap();
        let request = requests.iter().rfind(|request| request.starts_with("POST /v1/chat/completions")).expect("a chat request");
        serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap()
    }
}

fn serve(mut stream: TcpStream, routes: &[(&'static str, Vec<Step>)], seen: &Mutex<Vec<String>>) {
    let Some(request) = read_request(&mut stream) else { return };
    let not_found = vec![Step::Send(b"HTTP/1.1 404 Not Found\r\ncontent-length: 9\r\n\r\nNot Found".to_vec())];
    let steps = routes.iter().find(|(route, _)| request.starts_with(route)).map_or(&not_found, |(_, steps)| steps).clone();
    seen.lock().unwrap().push(request);
    for step in steps {
        match step {
            Step::Send(bytes) if stream.write_all(&bytes).is_err() => return,
            Step::Send(_) => {}
            Step::Wait(time) => std::thread::sleep(time),
            Step::Hold => while matches!(stream.read(&mut [0; 64]), Ok(1..)) {},
        }
    }
}

fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&request);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some(text.into_owned());
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(count) => request.extend_from_slice(&buffer[..count]),
        }
    }
}

pub fn send(text: impl AsRef<str>) -> Step {
    Step::Send(text.as_ref().as_bytes().to_vec())
}

pub fn wait(ms: u64) -> Step {
    Step::Wait(Duration::from_millis(ms))
}

/// The head of an event stream that ends with its connection.
pub fn events() -> Step {
    send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nconnection: close\r\n\r\n")
}

pub fn json(status: &str, body: &str) -> Step {
    send(format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    ))
}

/// A chunk with text, and what TokenFlow says of the link, if it does.
pub fn chunk(text: &str, link: Option<(f64, bool)>) -> String {
    let mut chunk = serde_json::json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "demo",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}],
    });
    if let Some((health, paced)) = link {
        chunk["tokenflow"] = serde_json::json!({"health": health, "rate": 9999.0, "paced": paced});
    }
    format!("data: {chunk}\n\n")
}

pub fn finish(reason: &str) -> String {
    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{}},\"finish_reason\":\"{reason}\"}}]}}\n\n")
}

pub fn goodbye(tokens: u64) -> String {
    format!(
        "data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":3,\"completion_tokens\":{tokens},\"total_tokens\":9}}}}\n\ndata: [DONE]\n\n"
    )
}

pub fn models() -> (&'static str, Vec<Step>) {
    (
        "GET /v1/models ",
        vec![json("200 OK", r#"{"object":"list","data":[{"id":"demo","object":"model"},{"id":"other","object":"model"}]}"#)],
    )
}

/// One connection as the hint server tells of it.
pub fn connection(cookie: u64, health: f64) -> serde_json::Value {
    serde_json::json!({
        "cookie": cookie, "local": "10.0.0.1:8000", "peer": format!("10.0.0.2:{}", 40000 + cookie), "health": health,
        "terms": {"delay": 1.0, "loss": 1.0, "queue": health}, "token_rate": 12.5, "srtt_us": 48211, "min_rtt_us": 12043,
        "retransmits": 3, "undelivered_bytes": 18211, "delivery_rate_bytes_per_s": 61240, "age_ms": 37, "source": "ebpf",
    })
}

/// An event of `GET /hint/stream`.
pub fn hint_event(kind: &str, health: f64, changed: &[serde_json::Value], removed: &[u64]) -> String {
    let event = serde_json::json!({
        "health_factor": health, "health": health, "token_rate": null,
        "metrics": {"rtt": 48211, "min_rtt": 12043, "retrans": 3, "delivery_rate": 61240, "queued_bytes": 18211},
        "source": "ebpf", "connections": 1, "age_ms": 37, "seq": 90211, "changed": changed, "removed": removed,
    });
    format!("event: {kind}\ndata: {event}\n\n")
}

/// A server that gives every chat this answer.
pub fn answering(steps: Vec<Step>) -> FakeServer {
    FakeServer::start(vec![models(), ("POST /v1/chat/completions ", steps)])
}

/// The binary, apart from its user's environment.
pub fn client(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenflow-client"));
    command.args(arguments).env_remove("TOKENFLOW_URL").env_remove("TOKENFLOW_HINT_URL").env_remove("TOKENFLOW_API_KEY");
    command.stdin(std::process::Stdio::null());
    command
}

/// Asks the server with a prompt and no hint server.
pub fn chat(server: &FakeServer, arguments: &[&str]) -> Output {
    client(&["chat", "--url", &server.url(), "--hint-url", "none", "Tell me"]).args(arguments).output().unwrap()
}

pub fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

pub fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}
