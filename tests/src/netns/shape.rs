//! What a link does to the packets that the server sends through it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A link towards clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkShape {
    /// Bits per second, Ethernet headers counted; `None` is as fast as the machine.
    pub rate: Option<u64>,
    /// Bytes that may wait before packets are dropped; means something only with a rate.
    pub queue_bytes: u64,
    /// Fraction of packets that are lost by chance, `0.0..1.0`.
    pub loss: f64,
    /// Fixed delay, one way.
    pub delay: Duration,
}

impl LinkShape {
    /// A queue of an everyday router: some 40 full packets.
    pub const QUEUE_BYTES: u64 = 60_000;

    /// Nothing in the way.
    pub fn free() -> Self {
        Self { rate: None, queue_bytes: Self::QUEUE_BYTES, loss: 0.0, delay: Duration::ZERO }
    }

    /// So many bits per second.
    pub fn limited(rate: u64) -> Self {
        Self { rate: Some(rate), ..Self::free() }
    }
}

impl Default for LinkShape {
    fn default() -> Self {
        Self::free()
    }
}
