use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::Connection;

/// Bytes assumed for a token's chunk until the first one has been sent: about what an OpenAI chunk weighs.
const TYPICAL_CHUNK_BYTES: u64 = 220;

/// Counts one response's output from the moment a token is made to the moment the client acknowledges it.
///
/// The engine counts tokens in, the response body counts them out as chunks of known size; what lies beyond is the connection's.
#[derive(Debug)]
pub struct StreamMeter {
    connection: Arc<Connection>,
    tokens_waiting: AtomicU64,
    tokens_sent: AtomicU64,
    chunks_sent: AtomicU64,
    bytes_sent: AtomicU64,
}

impl StreamMeter {
    pub fn new(connection: Arc<Connection>) -> Self {
        Self {
            connection,
            tokens_waiting: AtomicU64::new(0),
            tokens_sent: AtomicU64::new(0),
            chunks_sent: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
        }
    }

    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// The engine made a token for this stream.
    pub fn token_made(&self) {
        self.tokens_waiting.fetch_add(1, Relaxed);
    }

    /// The response took a token out of the engine's queue.
    pub fn token_taken(&self) {
        self.tokens_waiting.fetch_sub(1, Relaxed);
    }

    /// The response handed a chunk that carries `tokens` tokens to the HTTP layer.
    pub fn chunk_sent(&self, tokens: u64, bytes: u64) {
        self.tokens_sent.fetch_add(tokens, Relaxed);
        self.chunks_sent.fetch_add(1, Relaxed);
        self.bytes_sent.fetch_add(bytes, Relaxed);
    }

    /// Output made so far, in bytes: what was handed to the HTTP layer, and an estimate of what waits for it.
    pub fn produced_bytes(&self) -> u64 {
        self.bytes_sent.load(Relaxed) + self.waiting_bytes()
    }

    /// Mean bytes of a chunk on the wire.
    pub fn chunk_bytes(&self) -> u64 {
        self.mean_bytes(&self.chunks_sent)
    }

    /// Estimate of what the tokens that wait for the response will weigh, at this stream's mean bytes per token.
    fn waiting_bytes(&self) -> u64 {
        self.tokens_waiting.load(Relaxed) * self.mean_bytes(&self.tokens_sent)
    }

    fn mean_bytes(&self, count: &AtomicU64) -> u64 {
        self.bytes_sent.load(Relaxed).checked_div(count.load(Relaxed)).map_or(TYPICAL_CHUNK_BYTES, |bytes| bytes.max(1))
    }

    /// Output that the client has not acknowledged, in bytes: tokens that wait for the response, and what the connection holds.
    pub fn undelivered_bytes(&self) -> u64 {
        self.waiting_bytes() + self.connection.undelivered_bytes()
    }
}
