//! What the scheduler asks of the network, and what it does with the answers.

use super::SequenceId;

/// What the health of links does to the step budget, and to each stream's output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pacing {
    /// Health is reported, never used.
    Off,
    /// The step budget is scaled by the aggregate health factor.
    Global,
    /// Decode is clocked by delivery; prefill shares are scaled by the connection's own health.
    #[default]
    PerConnection,
}

/// What is known of the link of one stream at the moment of planning.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StreamSignal {
    /// 0..=1; 1 where unknown.
    pub health: f64,
    /// Output that the client has not acknowledged, in bytes: in our buffers, unsent in the socket, in flight.
    pub undelivered_bytes: u64,
    /// How fast the link delivers, where it is known and the network is the limit.
    pub delivery_rate_bytes_per_s: Option<f64>,
    pub min_rtt_us: Option<u32>,
    /// What a token weighs on the wire in a chunk of its own, in bytes, also where tokens share chunks.
    pub chunk_bytes: u32,
}

/// The scheduler's view of the network, asked while it plans. Answers are snapshots: nothing here may block.
pub trait Network {
    /// The aggregate health factor, 0..=1; 1 where unknown (fail open).
    fn health_factor(&self) -> f64;

    /// `None` for a sequence whose connection is unknown: it is never paced.
    fn stream(&self, id: SequenceId) -> Option<StreamSignal>;
}
