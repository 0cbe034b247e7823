//! One connection to `GET /hint/stream`: HTTP/1.1 over TCP or a unix socket, every wait bounded.

use std::{io, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, StatusCode, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    task::AbortHandle,
    time::{error::Elapsed, timeout},
};

use crate::{
    HintUrl,
    sse::{SseItem, SseParser, TooLarge},
};

/// Connecting, and the time until the response's head.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Servers send a keep-alive every half second; silence for this long means that nobody is there.
const SILENCE: Duration = Duration::from_secs(3);
/// A snapshot of ten thousand connections is about 4 MB.
const MAX_EVENT_BYTES: usize = 32 << 20;

/// The token of a hint server that asks for one, see its `--token`.
pub const TOKEN_ENVIRONMENT: &str = "TOKENFLOW_HINT_TOKEN";

/// Why there is no event stream, or no more of it.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("{0}")]
    Connect(#[from] io::Error),
    #[error("no answer in time")]
    Timeout(#[from] Elapsed),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("its answer is not an event stream")]
    ContentType,
    #[error("it ended the stream")]
    Ended,
    #[error("{0}")]
    TooLarge(#[from] TooLarge),
    #[error("its {event} event is not understood: {error}")]
    Event { event: &'static str, error: serde_json::Error },
    #[error("it sent a change before any snapshot")]
    ChangeFirst,
}

/// An open event stream.
pub struct EventStream {
    body: Incoming,
    parser: SseParser,
    /// Drives the connection; the stream ends with it.
    driver: AbortHandle,
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl EventStream {
    /// Asks for the stream; the answer's head must come within two seconds.
    pub async fn open(url: &HintUrl) -> Result<Self, StreamError> {
        match url {
            HintUrl::Http { host, port } => {
                let stream = timeout(ANSWER_WITHIN, TcpStream::connect((host.as_str(), *port))).await??;
                stream.set_nodelay(true)?;
                let host = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
                timeout(ANSWER_WITHIN, Self::request(stream, &host)).await?
            }
            HintUrl::Unix(path) => {
                let stream = timeout(ANSWER_WITHIN, UnixStream::connect(path)).await??;
                timeout(ANSWER_WITHIN, Self::request(stream, "localhost")).await?
            }
            HintUrl::None => Err(io::Error::other("there is no hint server").into()),
        }
    }

    async fn request(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, host: &str) -> Result<Self, StreamError> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection).abort_handle();
        let mut request = Request::get("/hint/stream").header(header::HOST, host).header(header::ACCEPT, "text/event-stream");
        if let Ok(token) = std::env::var(TOKEN_ENVIRONMENT) {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
        let response = sender.send_request(request).await?;
        let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        if response.status() != StatusCode::OK {
            return Err(StreamError::Status(response.status()));
        }
        if !content_type.starts_with("text/event-stream") {
            return Err(StreamError::ContentType);
        }
        Ok(Self { body: response.into_body(), parser: SseParser::new(MAX_EVENT_BYTES), driver })
    }

    /// What arrived next; never empty-handed for long, since keep-alives count.
    pub async fn next(&mut self) -> Result<Vec<SseItem>, StreamError> {
        let mut items = Vec::new();
        while items.is_empty() {
            let frame = timeout(SILENCE, self.body.frame()).await?.ok_or(StreamError::Ended)??;
            if let Some(bytes) = frame.data_ref() {
                self.parser.push(bytes, |item| items.push(item))?;
            }
        }
        Ok(items)
    }
}
