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

    /// Mean bytes of a chunk on the wire, of late, however many tokens shared it.
    pub(super) fn chunk_bytes(&self) -> u64 {
        self.mean_bytes(&self.recent_chunks)
    }

    /// What a token would weigh in a chunk of its own. Where tokens share chunks the mean chunk says nothing of that: a window of so many
    /// of those would grow with them, and they with it.
    pub fn token_chunk_bytes(&self) -> u64 {
        self.mean_bytes(&self.recent_tokens).max(self.chunk_bytes().min(TYPICAL_CHUNK_BYTES))
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

#[cfg(test)]
mod tests {
    use super::{
        super::{TrackedStream, coalesce::shared_bytes},
        *,
    };

    /// What a chunk weighs beside its tokens.
    const FRAME: u64 = 200;

    async fn meter() -> StreamMeter {
        let (_, stream) = TrackedStream::on_loopback().await;
        StreamMeter::new(stream.connection().clone(), ClientWord::default())
    }

    #[tokio::test]
    async fn a_token_costs_its_own_chunk_however_many_share_one() {
        let meter = meter().await;
        assert_eq!(meter.token_chunk_bytes(), TYPICAL_CHUNK_BYTES);
        (0..50).for_each(|_| meter.chunk_sent(1, 300));
        assert_eq!(meter.token_chunk_bytes(), 300, "each has its own");
        (0..50).for_each(|_| meter.chunk_sent(10, FRAME + 50));
        assert_eq!((meter.chunk_bytes(), meter.token_chunk_bytes()), (FRAME + 50, TYPICAL_CHUNK_BYTES));
        (0..50).for_each(|_| meter.chunk_sent(1, 90));
        assert_eq!(meter.token_chunk_bytes(), 90);
    }

    /// Log-probabilities of many candidates on a link that carries four tokens a second: a window of a few chunks fills with tokens, which
    /// share events as they may.
    #[tokio::test]
    async fn heavy_tokens_that_share_events_do_not_widen_their_own_window() {
        const TOKEN: u64 = 1_000;
        const RATE: f64 = 4_000.0;
        let meter = meter().await;
        for _ in 0..100 {
            let chunk = meter.token_chunk_bytes();
            let window = 4 * chunk;
            assert!(window <= 4 * (FRAME + TOKEN), "{window}");
            let mut waiting = window.div_ceil(TOKEN);
            while waiting > 0 {
                let shared = (shared_bytes(Some(RATE), chunk) / TOKEN).clamp(1, waiting);
                meter.chunk_sent(shared, FRAME + shared * TOKEN);
                waiting -= shared;
            }
            assert!(meter.chunk_bytes() <= FRAME + 2 * TOKEN, "{}", meter.chunk_bytes());
        }
    }
}
