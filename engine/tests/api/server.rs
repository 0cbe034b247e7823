//! A server made for one test, asked in memory or over TCP.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{Method, Request, Response, StatusCode, header},
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokenflow_engine::{
    api::{self, ApiState, ChatConfig, ReasoningParser, ToolCallParser},
    config::{EngineInfo, TimeLimits},
    engine::{EngineCore, Served},
    health::Links,
    metrics::EngineMetrics,
    model::GenerationDefaults,
    scheduler::{Pacing, Scheduler, SchedulerConfig},
    text::Engine,
    tokenizer::Tokenizer,
};
use tokenflow_hint_api::{HintUrl, Subscriber};
use tower::ServiceExt;

use crate::script::{EOS, Gate, Script};

pub const MAX_MODEL_LEN: usize = 128;

pub struct Server {
    pub router: Router,
    pub tokenizer: Arc<Tokenizer>,
    pub metrics: Arc<EngineMetrics>,
    pub gate: Arc<Gate>,
    /// The seeds that the executor has seen, in the order of first tokens.
    pub seeds: Arc<Mutex<Vec<u64>>>,
    pub engine: Engine,
}

/// Serves a model that always says `reply`.
pub fn says(reply: &str) -> Server {
    start(reply, Gate::open(), None)
}

/// The same, with what the operator says.
pub fn says_with(reply: &str, configure: impl FnOnce(&mut ApiState)) -> Server {
    let server = says(reply);
    let mut state = ApiState::new(server.engine.clone(), vec!["q".to_owned()], "models/q".to_owned());
    configure(&mut state);
    Server { router: api::router(Arc::new(state)), ..server }
}

/// The same for a model that thinks and calls tools as Qwen's do.
pub fn qwen(reply: &str) -> Server {
    let chat = ChatConfig {
        tool_call_parser: Some(ToolCallParser::Hermes),
        reasoning_parser: Some(ReasoningParser::Qwen3),
        trust_request_chat_template: true,
    };
    says_with(reply, |state| state.chat = chat)
}

pub fn start(reply: &str, gate: Arc<Gate>, failing_step: Option<u64>) -> Server {
    start_with(reply, gate, failing_step, |_, _| ())
}

/// With a hint server.
pub fn start_hinted(reply: &str, gate: Arc<Gate>, hints: HintUrl) -> Server {
    start_on(reply, gate, None, hints, |_, _| ())
}

/// With other limits than the usual ones.
pub fn start_with(
    reply: &str,
    gate: Arc<Gate>,
    failing_step: Option<u64>,
    change: impl FnOnce(&mut SchedulerConfig, &mut TimeLimits),
) -> Server {
    start_on(reply, gate, failing_step, HintUrl::None, change)
}

fn start_on(
    reply: &str,
    gate: Arc<Gate>,
    failing_step: Option<u64>,
    hints: HintUrl,
    change: impl FnOnce(&mut SchedulerConfig, &mut TimeLimits),
) -> Server {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/qwen3");
    let tokenizer = Arc::new(Tokenizer::from_dir(&folder).unwrap());
    let mut info = EngineInfo {
        max_model_len: MAX_MODEL_LEN,
        vocab_size: 1024,
        block_size: 16,
        num_blocks: 256,
        max_num_batched_tokens: 512,
        max_num_seqs: 64,
        eos_token_ids: vec![EOS],
        max_logprobs: 20,
        ..EngineInfo::default()
    };
    let mut config = SchedulerConfig {
        max_num_batched_tokens: info.max_num_batched_tokens,
        max_num_seqs: info.max_num_seqs,
        block_size: info.block_size,
        num_blocks: info.num_blocks,
        max_model_len: info.max_model_len,
        pacing: Pacing::PerConnection,
        max_waiting: None,
        ..SchedulerConfig::default()
    };
    change(&mut config, &mut info.limits);
    let scheduler = Scheduler::new(config);
    let metrics = Arc::new(EngineMetrics::new("q", &info));
    let seeds = Arc::default();
    let script = Script {
        reply: tokenizer.encode(reply, false).unwrap(),
        failing_step,
        gate: gate.clone(),
        seeds: Arc::clone(&seeds),
        submitted: None,
    };
    let links = Links::new(Subscriber::spawn(hints));
    let core = EngineCore::start(info, scheduler, Box::new(script), links, metrics.clone()).unwrap();
    let served =
        Served { core, metrics: metrics.clone(), tokenizer: tokenizer.clone(), generation: GenerationDefaults::default(), seed: 0 };
    let engine = Engine::from(served);
    let names = vec!["q".to_owned(), "alias".to_owned()];
    let state = ApiState::new(engine.clone(), names, "models/q".to_owned());
    Server { router: api::router(Arc::new(state)), tokenizer, metrics, gate, seeds, engine }
}

impl Server {
    /// Serves anew with this many tokens in a chunk.
    pub fn set_stream_interval(&mut self, interval: usize) {
        self.configure(|state| state.stream_interval = interval);
    }

    /// Serves anew with what the operator says.
    pub fn configure(&mut self, configure: impl FnOnce(&mut ApiState)) {
        let mut state = ApiState::new(self.engine.clone(), vec!["q".to_owned()], "models/q".to_owned());
        configure(&mut state);
        self.router = api::router(Arc::new(state));
    }

    pub async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> (StatusCode, String) {
        read(self.send(Request::get(path).body(Body::empty()).unwrap()).await).await
    }

    pub async fn post_raw(&self, path: &str, body: impl Into<Body>) -> (StatusCode, String) {
        read(self.send(post(path, body)).await).await
    }

    /// The answer's JSON, which must be a success.
    pub async fn post(&self, path: &str, body: Value) -> Value {
        let (status, text) = self.post_raw(path, body.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// The events of a stream, which must end with `[DONE]`; that one is left out. Reader and engine go in step.
    pub async fn stream(&self, path: &str, mut body: Value) -> Vec<Value> {
        body["stream"] = json!(true);
        self.gate.set_open(false);
        let mut response = self.send(post(path, body.to_string())).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream; charset=utf-8");
        let mut all = Vec::new();
        while all.last() != Some(&Value::String("[DONE]".to_owned())) {
            self.gate.allow(1);
            all.extend(frame(&mut response).await.expect("an end of the stream"));
        }
        assert_eq!(frame(&mut response).await, None);
        self.gate.set_open(true);
        all.pop();
        all
    }

    /// The same where the reader does not follow the engine token by token, because text is held back.
    pub async fn stream_freely(&self, path: &str, mut body: Value) -> Vec<Value> {
        body["stream"] = json!(true);
        let (status, text) = self.post_raw(path, body.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        let mut all = events(&text);
        assert_eq!(all.pop(), Some(Value::String("[DONE]".to_owned())));
        all
    }

    /// The events of a stream that gives them names, by which they are told from one another.
    pub async fn named_events(&self, path: &str, mut body: Value) -> Vec<Value> {
        body["stream"] = json!(true);
        let (status, text) = self.post_raw(path, body.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        let event = |event: &str| {
            let (name, data) = event.strip_prefix("event: ").and_then(|event| event.split_once("\ndata: ")).unwrap();
            let data: Value = serde_json::from_str(data).unwrap();
            assert_eq!(data["type"], name);
            data
        };
        text.trim_end().split("\n\n").map(event).collect()
    }

    /// Returns once the metric is `expected`.
    pub async fn wait_for_metric(&self, name_and_labels: &str, expected: &str) {
        wait_for_metric(&self.metrics, name_and_labels, expected).await;
    }
}

/// Returns once the metric is `expected`; the loop may count what it has answered a moment later.
pub async fn wait_for_metric(metrics: &EngineMetrics, name_and_labels: &str, expected: &str) {
    let mut last = None;
    for _ in 0..2000 {
        let text = metrics.render();
        last = text.lines().find_map(|l| l.strip_prefix(name_and_labels).map(|v| v.trim().to_owned()));
        if last.as_deref() == Some(expected) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{name_and_labels} is {last:?}, not {expected}");
}

pub fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::builder().method(Method::POST).uri(path).header(header::CONTENT_TYPE, "application/json").body(body.into()).unwrap()
}

pub async fn read(response: Response<Body>) -> (StatusCode, String) {
    let status = response.status();
    let bytes: Bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

/// The data of every event; `[DONE]` as a string.
pub fn events(text: &str) -> Vec<Value> {
    assert!(text.ends_with("\n\n"), "{text:?}");
    let datas = text.trim_end().split("\n\n").map(|event| event.strip_prefix("data: ").unwrap_or_else(|| panic!("{event:?}")));
    datas.map(|data| serde_json::from_str(data).unwrap_or_else(|_| Value::String(data.to_owned()))).collect()
}

/// The events of the next piece of the body.
pub async fn frame(response: &mut Response<Body>) -> Option<Vec<Value>> {
    let data = response.body_mut().frame().await?.unwrap().into_data().unwrap();
    Some(events(std::str::from_utf8(&data).unwrap()))
}

/// Replaces what differs from run to run.
pub fn without_ids(mut value: Value) -> Value {
    for (field, fixed) in [("id", json!("ID")), ("created", json!(0))] {
        if value.get(field).is_some() {
            value[field] = fixed;
        }
    }
    value
}

pub fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap()
}

/// One event a line.
pub fn lines(events: Vec<Value>) -> String {
    events.into_iter().map(|event| without_ids(event).to_string() + "\n").collect()
}
