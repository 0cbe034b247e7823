//! One token stream read by a client host of the testbed, and what arrived when.

use std::{
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Context;
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{http, netns::ClientHost};

/// Receive buffer of a slow reader: what it has not read must not hide in its kernel.
const SLOW_BUFFER_BYTES: usize = 4096;

/// What a slow reader reads ahead of its pace.
const SLOW_READ_AHEAD_BYTES: usize = 512;

/// What is asked, and how it is read.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    pub prompt: String,
    pub max_tokens: usize,
    /// The client takes no more than so many bytes of the stream per second; `None` reads all at once.
    pub read_bytes_per_s: Option<u64>,
}

impl StreamOptions {
    pub fn new(prompt: &str, max_tokens: usize) -> Self {
        Self { prompt: prompt.to_owned(), max_tokens, read_bytes_per_s: None }
    }

    /// The same, read so slowly.
    pub fn slowly(self, bytes_per_s: u64) -> Self {
        Self { read_bytes_per_s: Some(bytes_per_s), ..self }
    }
}

/// A chunk as it arrived.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub at: Instant,
    pub tokens: usize,
    /// Bytes of TCP payload: the event and, where each has a chunk of its own, that chunk's framing.
    pub bytes: usize,
    pub text: String,
    /// From the chunk's `tokenflow` object.
    pub health: f64,
    pub paced: bool,
}

/// A stream that a thread of its own reads, until it ends or is dropped.
pub struct TokenStream {
    /// Before the client connected.
    pub started_at: Instant,
    shared: Arc<Shared>,
    reader: Option<JoinHandle<anyhow::Result<()>>>,
}

#[derive(Default)]
struct Shared {
    arrivals: Mutex<Vec<Arrival>>,
    socket: Mutex<Option<TcpStream>>,
    local: Mutex<Option<SocketAddr>>,
    stop: AtomicBool,
    finish_reason: Mutex<Option<String>>,
}

impl TokenStream {
    /// Streams a completion that a client on `host` asks for, or one on our own where there is none.
    pub fn start(server: SocketAddr, host: Option<Arc<dyn ClientHost>>, options: StreamOptions) -> Self {
        let shared = Arc::new(Shared::default());
        let started_at = Instant::now();
        let reader = std::thread::spawn({
            let shared = shared.clone();
            move || {
                if let Some(host) = host {
                    host.enter()?;
                }
                let read = read(server, &options, &shared);
                // Whoever hangs up does not care how the stream ended.
                if shared.stop.load(Ordering::Relaxed) { Ok(()) } else { read }
            }
        });
        Self { started_at, shared, reader: Some(reader) }
    }

    /// What has arrived so far.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.shared.arrivals.lock().map(|a| a.clone()).unwrap_or_default()
    }

    /// How many chunks that is.
    pub fn count(&self) -> usize {
        self.shared.arrivals.lock().map(|arrivals| arrivals.len()).unwrap_or_default()
    }

    /// The client's own address, once it is connected.
    pub fn local(&self) -> Option<SocketAddr> {
        self.shared.local.lock().ok().and_then(|l| *l)
    }

    /// Tokens per second that arrived between two moments.
    pub fn rate(&self, from: Instant, to: Instant) -> f64 {
        let tokens: usize = self.arrivals().iter().filter(|a| a.at >= from && a.at < to).map(|a| a.tokens).sum();
        tokens as f64 / to.duration_since(from).as_secs_f64()
    }

    /// Tokens per second over the last `window`.
    pub fn recent_rate(&self, window: Duration) -> f64 {
        let now = Instant::now();
        self.rate(now - window, now)
    }

    pub fn is_running(&self) -> bool {
        self.reader.as_ref().is_some_and(|reader| !reader.is_finished())
    }

    /// Waits for the end: all text and the finish reason.
    ///
    /// # Errors
    /// When the stream broke off or carried an error.
    pub fn finish(mut self) -> anyhow::Result<(String, Option<String>)> {
        if let Some(reader) = self.reader.take() {
            reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
        }
        let text = self.arrivals().into_iter().map(|a| a.text).collect();
        Ok((text, self.shared.finish_reason.lock().ok().and_then(|r| r.clone())))
    }
}

impl Drop for TokenStream {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(socket) = self.shared.socket.lock().ok().and_then(|mut socket| socket.take()) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

fn read(server: SocketAddr, options: &StreamOptions, shared: &Shared) -> anyhow::Result<()> {
    let body = json!({
        "prompt": options.prompt, "max_tokens": options.max_tokens, "ignore_eos": true, "temperature": 0.7, "seed": 7, "stream": true,
        "stream_options": {"include_health": true, "include_usage": true, "continuous_usage_stats": true},
    });
    let slow = options.read_bytes_per_s.is_some();
    let socket = connect(server, slow.then_some(SLOW_BUFFER_BYTES)).with_context(|| format!("cannot connect to {server}"))?;
    if let (Ok(mut local), Ok(mut slot)) = (shared.local.lock(), shared.socket.lock()) {
        *local = Some(socket.local_addr()?);
        *slot = Some(socket.try_clone()?);
    }
    let read_ahead = if slow { SLOW_READ_AHEAD_BYTES } else { 8192 };
    let mut response = http::exchange(socket, read_ahead, "POST", "/v1/completions", Some(&body))?;
    if response.status != 200 {
        let status = response.status;
        anyhow::bail!("{status}: {}", response.read_all()?);
    }
    let mut seen_tokens = 0;
    let mut pending = Vec::new();
    let (began, mut taken) = (Instant::now(), 0);
    while let Some(chunk) = response.chunk()? {
        let at = Instant::now();
        taken += chunk.len();
        if let Some(rate) = options.read_bytes_per_s {
            let due = began + Duration::from_secs_f64(taken as f64 / rate as f64);
            std::thread::sleep(due.saturating_duration_since(at));
        }
        if shared.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        pending.extend(chunk);
        while let Some(end) = pending.windows(2).position(|w| w == b"\n\n") {
            let event: Vec<u8> = pending.drain(..end + 2).collect();
            let bytes = event.len() + format!("{:x}\r\n\r\n", event.len()).len();
            let event = std::str::from_utf8(&event)?.trim();
            let data = event.strip_prefix("data: ").with_context(|| format!("not an event: {event}"))?;
            if data != "[DONE]" {
                take(&serde_json::from_str(data)?, at, bytes, &mut seen_tokens, shared)?;
            }
        }
    }
    Ok(())
}

/// The receive buffer's size is a promise to the peer from the first packet on, so it is set before.
fn connect(server: SocketAddr, receive_buffer: Option<usize>) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.connect(&server.into())?;
    Ok(socket.into())
}

fn take(event: &Value, at: Instant, bytes: usize, seen_tokens: &mut usize, shared: &Shared) -> anyhow::Result<()> {
    anyhow::ensure!(event.get("error").is_none(), "the stream ended with {event}");
    let Some(choice) = event["choices"].get(0) else { return Ok(()) };
    if let (Some(reason), Ok(mut slot)) = (choice["finish_reason"].as_str(), shared.finish_reason.lock()) {
        *slot = Some(reason.to_owned());
    }
    // Without running usage a chunk counts as one token.
    let total = event["usage"]["completion_tokens"].as_u64().map_or(*seen_tokens + 1, |n| n as usize);
    let arrival = Arrival {
        at,
        tokens: total.saturating_sub(*seen_tokens),
        bytes,
        text: choice["text"].as_str().unwrap_or_default().to_owned(),
        health: event["tokenflow"]["health"].as_f64().unwrap_or(1.0),
        paced: event["tokenflow"]["paced"].as_bool().unwrap_or(false),
    };
    *seen_tokens = total;
    if let Ok(mut arrivals) = shared.arrivals.lock() {
        arrivals.push(arrival);
    }
    Ok(())
}
