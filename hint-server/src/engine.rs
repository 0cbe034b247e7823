//! What the engine says of itself in its `/metrics`, once a second, for the page. Nobody waits for it; a dead engine is shown as none.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use arc_swap::ArcSwapOption;
use serde::Serialize;
use tokenflow_hint_api::HintUrl;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

const EVERY: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(2);
const EXPIRES: Duration = Duration::from_secs(4);
/// An engine's page of metrics is about 60 KB.
const MAX_BYTES: u64 = 4 << 20;

/// An engine's budget and load; sums over its label sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct EngineState {
    pub max_num_batched_tokens: f64,
    pub step_token_budget: f64,
    pub paced_requests: f64,
    pub running_requests: f64,
    pub waiting_requests: f64,
    pub kv_cache_usage: f64,
}

/// Follows one engine.
pub struct EngineWatch {
    host: String,
    port: u16,
    state: ArcSwapOption<(EngineState, Instant)>,
}

impl EngineWatch {
    /// # Errors
    /// When it is not `http://HOST:PORT`.
    pub fn new(url: &str) -> anyhow::Result<Arc<Self>> {
        let base = url.trim_end_matches('/').trim_end_matches("/metrics");
        match base.parse() {
            Ok(HintUrl::Http { host, port }) => Ok(Arc::new(Self { host, port, state: ArcSwapOption::empty() })),
            _ => bail!("--engine-url '{url}' is not http://HOST:PORT"),
        }
    }

    /// Its latest word; `None` where there is none or it is old. Does not wait.
    pub fn state(&self) -> Option<EngineState> {
        self.state.load().as_ref().filter(|heard| heard.1.elapsed() < EXPIRES).map(|heard| heard.0)
    }

    /// Follows until dropped.
    pub async fn run(self: Arc<Self>) {
        let mut said = false;
        loop {
            match timeout(PATIENCE, self.ask()).await.context("no answer in time").flatten() {
                Ok(state) => {
                    self.state.store(Some(Arc::new((state, Instant::now()))));
                    said = false;
                }
                Err(error) if !said => {
                    tracing::info!("--engine-url: {error:#}; trying on");
                    said = true;
                }
                Err(_) => {}
            }
            sleep(EVERY).await;
        }
    }

    /// HTTP/1.0, whose answers end with their connection.
    async fn ask(&self) -> anyhow::Result<EngineState> {
        let mut stream = TcpStream::connect((self.host.as_str(), self.port)).await.context("cannot connect")?;
        stream.write_all(format!("GET /metrics HTTP/1.0\r\nhost: {}:{}\r\n\r\n", self.host, self.port).as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(MAX_BYTES).read_to_end(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").context("its answer is not HTTP")?;
        ensure!(head.split(' ').nth(1) == Some("200"), "it answered {}", head.lines().next().unwrap_or_default());
        Ok(read(body))
    }
}

fn read(page: &str) -> EngineState {
    let mut state = EngineState::default();
    for (name, value) in page.lines().filter_map(sample) {
        let sum = match name {
            "tokenflow:max_num_batched_tokens" => &mut state.max_num_batched_tokens,
            "tokenflow:step_token_budget" => &mut state.step_token_budget,
            "tokenflow:paced_requests" => &mut state.paced_requests,
            "vllm:num_requests_running" => &mut state.running_requests,
            "vllm:num_requests_waiting" => &mut state.waiting_requests,
            "vllm:kv_cache_usage_perc" => &mut state.kv_cache_usage,
            _ => continue,
        };
        *sum += value;
    }
    state
}

/// Name and value of one line of Prometheus' text format; `None` for comments, values that are no finite numbers and what is no sample.
fn sample(line: &str) -> Option<(&str, f64)> {
    let name_ends = line.find(|c: char| c == '{' || c.is_whitespace())?;
    let (name, rest) = line.split_at(name_ends);
    let values = match rest.strip_prefix('{') {
        None => rest,
        Some(labels) => &labels[labels_end(labels)?..],
    };
    let value: f64 = values.split_whitespace().next()?.parse().ok()?;
    (!name.is_empty() && !name.starts_with('#') && value.is_finite()).then_some((name, value))
}

/// Where the labels are over: behind the first closing brace outside of quotes.
fn labels_end(labels: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in labels.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '}' if !quoted => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn finds_its_metrics_among_others_whatever_the_labels() {
        let page = "# HELP tokenflow:step_token_budget Tokens.\n# TYPE tokenflow:step_token_budget gauge\n\
                    tokenflow:step_token_budget{engine=\"0\",model_name=\"a \\\"b} c\"} 1024\n\
                    tokenflow:max_num_batched_tokens 2048 1700000000\n\
                    vllm:num_requests_running{engine=\"0\"} 3\nvllm:num_requests_running{engine=\"1\"} 4\n\
                    vllm:kv_cache_usage_perc NaN\ntokenflow:paced_requests{broken 5\n";
        let state =
            EngineState { max_num_batched_tokens: 2048.0, step_token_budget: 1024.0, running_requests: 7.0, ..EngineState::default() };
        assert_eq!(read(page), state);
    }

    #[test]
    fn urls_are_read_with_or_without_the_route() {
        for url in ["http://127.0.0.1:8000", "http://127.0.0.1:8000/", "http://127.0.0.1:8000/metrics"] {
            let watch = EngineWatch::new(url).unwrap();
            assert_eq!((watch.host.as_str(), watch.port), ("127.0.0.1", 8000));
        }
        for url in ["https://a:1", "a:1", "unix:/a", "none", ""] {
            let error = EngineWatch::new(url).err().unwrap().to_string();
            assert!(error.contains("--engine-url"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_page_is_read(page in "((tokenflow:paced_requests|x)?[{} \"\\\\a=,0-9.eNn+-]{0,30}\n|\\PC{0,20}\n){0,10}") {
            let state = read(&page);
            prop_assert!(state.paced_requests.is_finite());
        }

        #[test]
        fn what_prometheus_writes_is_read(label in "[^\n\"\\\\]{0,20}", value in -1e9..1e9f64) {
            let line = format!("a_b:c{{x=\"{label}\",y=\"\\\"\\\\\"}} {value}");
            prop_assert_eq!(sample(&line), Some(("a_b:c", value)));
        }
    }
}
