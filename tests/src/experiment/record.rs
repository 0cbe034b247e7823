//! What was seen of one run, before anything is computed from it. Times are seconds since the beginning of the measured window.

use serde::{Deserialize, Serialize};

/// A run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// One for each stream at a time, or for each link of arrivals; in the order of the scenario's groups and their links.
    pub seats: Vec<Seat>,
    /// Some twenty a second.
    pub samples: Vec<Sample>,
    pub round_trips: Vec<RoundTrip>,
    /// Processor time over the window: cores in use, by process.
    pub cores: Vec<(String, f64)>,
}

/// A client that asks one request after the other, or, with arrivals, one every so often.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seat {
    pub group: usize,
    pub link: usize,
    pub requests: Vec<Request>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    pub asked: f64,
    pub chunks: Vec<Chunk>,
}

/// A chunk of a stream as the client read it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chunk {
    pub at: f64,
    pub tokens: u32,
    /// In the TCP payload: event and chunk framing.
    pub bytes: u32,
    pub health: f32,
}

/// What the servers said of the connections at a moment; an element for each seat, `None` where the hint server had none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub at: f64,
    pub undelivered_bytes: Vec<Option<u64>>,
    pub health: Vec<Option<f64>>,
    /// Of all streams together, as the engine has it: what waits for the sockets too.
    pub held_bytes: Option<u64>,
}

/// Of a datagram that went through a bottleneck's queue and came back, or as the queue itself says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoundTrip {
    pub group: usize,
    pub at: f64,
    pub ms: f64,
}

impl Record {
    /// Tokens that the seat's client had by `to` and not by `from`.
    pub fn tokens(&self, seat: usize, from: f64, to: f64) -> u64 {
        self.seats[seat].chunks().filter(|chunk| chunk.at >= from && chunk.at < to).map(|chunk| u64::from(chunk.tokens)).sum()
    }
}

impl Seat {
    pub fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.requests.iter().flat_map(|request| &request.chunks)
    }
}
