use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::{ClientWord, Connection};

/// Bytes assumed for a token's chunk until the first one has been sent: about what an OpenAI chunk weighs.
const TYPICAL_CHUNK_BYTES: u64 = 220;

/// How much the chunks before count beside the latest: a stream that begins to share chunks is soon known to.
const WEIGHT_OF_THE_PAST: f64 = 0.8;

/// Counts one response's output from the moment a token is made to the moment the client acknowledges it.
///
/// The engine counts tokens in, the response body counts them out as chunks of known size; what lies beyond is the connection's.
#[derive(Debug)]
pub struct StreamMeter {
    connection: Arc<Connection>,
    client: ClientWord,
    tokens_waiting: AtomicU64,
    bytes_sent: AtomicU64,
    /// Of late, the bits of `f64`: written by the response alone.
    recent_tokens: AtomicU64,
    recent_chunks: AtomicU64,
    recent_bytes: AtomicU64,
}

impl StreamMeter {
    /// For a response on `connection` to a request that says `client` of itself.
    pub fn new(connection: Arc<Connection>, client: ClientWord) -> Self {
        Self {
            connection,
            client,
            tokens_waiting: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            recent_tokens: AtomicU64::new(0),
            recent_chunks: AtomicU64::new(0),
            recent_bytes: AtomicU64::new(0),
        }
    }

    /// For another choice of the same response.
    pub fn sibling(&self) -> Self {
        Self::new(self.connection.clone(), self.client)
    }

    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    pub fn client(&self) -> &ClientWord {
        &self.client
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
        self.bytes_sent.fetch_add(bytes, Relaxed);
        for (sum, more) in [(&self.recent_tokens, tokens), (&self.recent_chunks, 1), (&self.recent_bytes, bytes)] {
            add(sum, WEIGHT_OF_THE_PAST, more);
        }
    }

    /// What the HTTP layer puts around it.
    pub fn framing_sent(&self, bytes: u64) {
        self.bytes_sent.fetch_add(bytes, Relaxed);
        add(&self.recent_bytes, 1.0, bytes);
    }

    /// Output made so far, in bytes: what was handed to the HTTP layer, and an estimate of what waits for it.
    pub fn produced_bytes(&self) -> u64 {
        self.bytes_sent.load(Relaxed) + self.waiting_bytes()
    }

    /// Mean bytes of a chunk on the wire, of late.
    pub fn chunk_bytes(&self) -> u64 {
        self.mean_bytes(&self.recent_chunks)
    }

    /// Estimate of what the tokens that wait for the response will weigh, by what tokens weighed of late: where the link is behind
    /// they share chunks, and most of a chunk's weight does not grow with them.
    fn waiting_bytes(&self) -> u64 {
        self.tokens_waiting.load(Relaxed) * self.mean_bytes(&self.recent_tokens)
    }

    fn mean_bytes(&self, count: &AtomicU64) -> u64 {
        let count = f64::from_bits(count.load(Relaxed));
        if count > 0.0 { ((f64::from_bits(self.recent_bytes.load(Relaxed)) / count).round() as u64).max(1) } else { TYPICAL_CHUNK_BYTES }
    }

    /// Output that the client has not acknowledged, in bytes: tokens that wait for the response, and what the connection holds.
    pub fn undelivered_bytes(&self) -> u64 {
        self.waiting_bytes() + self.connection.undelivered_bytes()
    }
}

/// To the bits of an `f64` that one thread writes.
fn add(sum: &AtomicU64, weight: f64, more: u64) {
    sum.store((f64::from_bits(sum.load(Relaxed)) * weight + more as f64).to_bits(), Relaxed);
}
