//! A question asked over HTTP and its answer as a stream of chunks. It ends well only after a finish reason; everything
//! else, a refusal, an error within the stream, a cut, is an error that says what happened.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use reqwest::{Client, RequestBuilder, Response};
use tokenflow_hint_api::sse::{SseItem, SseParser};

use super::wire::{ChatRequest, Link, ModelList, Usage, WireChunk, error_message, sentence};
use crate::error::root_cause;
use crate::{ClientError, Endpoint};

/// Far above any chunk of text; a server that sends more in one event does not speak this protocol.
const MAX_EVENT_BYTES: usize = 16 << 20;

/// A list of models is no work; a server that takes longer is not there.
const LIST_WITHIN: Duration = Duration::from_secs(10);

/// What one event of the stream says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chunk {
    /// When its bytes were read; several chunks read at once arrived at once. None where it did not come over a network.
    pub arrived: Option<Instant>,
    pub text: String,
    /// Of a model that thinks before it answers.
    pub reasoning: String,
    /// So far, where the server counts for us.
    pub usage: Option<Usage>,
    pub link: Option<Link>,
    pub finish_reason: Option<String>,
}

impl Chunk {
    /// Whether it brings tokens that can be seen.
    pub fn says_something(&self) -> bool {
        !self.text.is_empty() || !self.reasoning.is_empty()
    }
}

/// One server, and the key to it.
pub struct Server {
    endpoint: Endpoint,
    http: Client,
    api_key: Option<String>,
}

impl Server {
    pub fn new(endpoint: Endpoint, api_key: Option<String>) -> Result<Self, ClientError> {
        let http = endpoint.client().map_err(|error| ClientError::unreachable(&endpoint.to_string(), &error))?;
        Ok(Self { endpoint, http, api_key })
    }

    /// The first model that the server lists.
    pub async fn first_model(&self) -> Result<String, ClientError> {
        let url = self.endpoint.url("/v1/models");
        let response = self.send(self.http.get(&url).timeout(LIST_WITHIN), &url).await?;
        let list: ModelList = response.json().await.map_err(|error| malformed(&url, "a list of models", &error))?;
        list.data.into_iter().next().map(|model| model.id).ok_or(ClientError::NoModel { url })
    }

    /// Asks; returns when the server begins to answer.
    pub async fn ask(&self, request: &ChatRequest<'_>) -> Result<ChatStream, ClientError> {
        let url = self.endpoint.url("/v1/chat/completions");
        let response = self.send(self.http.post(&url).json(request), &url).await?;
        let content_type = response.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !content_type.starts_with("text/event-stream") {
            let why = format!("its content type is `{content_type}`");
            return Err(ClientError::Malformed { url, expected: "an event stream", why });
        }
        Ok(ChatStream {
            url,
            body: response.bytes_stream().boxed(),
            parser: SseParser::new(MAX_EVENT_BYTES),
            ready: VecDeque::new(),
            received: 0,
            finished: false,
        })
    }

    async fn send(&self, mut request: RequestBuilder, url: &str) -> Result<Response, ClientError> {
        if let Some(key) = &self.api_key {
            request = request.bearer_auth(key);
        }
        let response = request.send().await.map_err(|error| ClientError::unreachable(url, &error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let message = error_message(&response.text().await.unwrap_or_default());
        Err(ClientError::Refused { url: url.to_owned(), status, message })
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        self.endpoint.fmt(f)
    }
}

pub struct ChatStream {
    url: String,
    body: BoxStream<'static, reqwest::Result<Bytes>>,
    parser: SseParser,
    /// Parsed and not yet handed out; an error comes after what arrived before it.
    ready: VecDeque<Result<Chunk, ClientError>>,
    received: u64,
    finished: bool,
}

impl ChatStream {
    /// The next chunk, or None after a complete answer. Safe to cancel: nothing that arrived is lost.
    pub async fn next(&mut self) -> Result<Option<Chunk>, ClientError> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                let chunk = chunk?;
                self.received += u64::from(chunk.says_something());
                self.finished |= chunk.finish_reason.is_some();
                return Ok(Some(chunk));
            }
            match self.body.next().await {
                Some(Ok(bytes)) => self.read(&bytes),
                // A finished answer stays complete if only the goodbye is lost.
                _ if self.finished => return Ok(None),
                Some(Err(error)) => return Err(ClientError::Broken { tokens: self.received, why: root_cause(&error) }),
                None => return Err(ClientError::Incomplete { tokens: self.received }),
            }
        }
    }

    fn read(&mut self, bytes: &[u8]) {
        let Self { url, parser, ready, .. } = self;
        let arrived = Instant::now();
        let read = parser.push(bytes, |item| match item {
            SseItem::Event { data, .. } if data != "[DONE]" => ready.push_back(chunk(url, &data, arrived)),
            _ => {}
        });
        if let Err(error) = read {
            ready.push_back(Err(malformed(url, "a chat chunk", &error)));
        }
    }
}

fn chunk(url: &str, data: &str, arrived: Instant) -> Result<Chunk, ClientError> {
    let wire: WireChunk = serde_json::from_str(data).map_err(|error| malformed(url, "a chat chunk", &error))?;
    if let Some(error) = wire.error.filter(|error| !error.is_null()) {
        return Err(ClientError::Reported(sentence(&error).unwrap_or_else(|| error.to_string())));
    }
    let choice = wire.choices.into_iter().next().unwrap_or_default();
    Ok(Chunk {
        arrived: Some(arrived),
        text: choice.delta.content.unwrap_or_default(),
        reasoning: choice.delta.reasoning.or(choice.delta.reasoning_content).unwrap_or_default(),
        usage: wire.usage,
        link: wire.tokenflow,
        finish_reason: choice.finish_reason,
    })
}

fn malformed(url: &str, expected: &'static str, error: &(dyn std::error::Error + 'static)) -> ClientError {
    ClientError::Malformed { url: url.to_owned(), expected, why: root_cause(error) }
}
