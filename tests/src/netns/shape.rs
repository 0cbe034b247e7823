//! What a link does to the packets that the server sends through it.

use std::time::Duration;

use anyhow::ensure;
use serde::{Deserialize, Serialize};

/// A full packet with its Ethernet header.
pub(super) const FRAME_BYTES: u64 = 1514;

/// A link towards clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkShape {
    /// Bits per second, Ethernet headers counted; `None` is as fast as the machine.
    pub rate: Option<u64>,
    /// Bytes that may wait before packets are dropped; means something only with a rate.
    pub queue_bytes: u64,
    /// Fraction of packets towards the clients that are lost by chance, behind the queue: `0.0..1.0`.
    pub loss: f64,
    /// Fixed delay in each direction, so that the round trip grows by twice of it.
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

    /// The same with so many bytes of queue.
    pub fn queue(self, queue_bytes: u64) -> Self {
        Self { queue_bytes, ..self }
    }

    /// The same with a fraction of packets lost.
    pub fn loss(self, loss: f64) -> Self {
        Self { loss, ..self }
    }

    /// The same with so much delay in each direction.
    pub fn delay(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// # Errors
    /// When no link can be like that; the message names the field.
    pub(super) fn validate(&self) -> anyhow::Result<()> {
        ensure!((0.0..1.0).contains(&self.loss), "loss is {}; it must be at least 0 and below 1", self.loss);
        if let Some(rate) = self.rate {
            ensure!((1_000..=10_000_000_000).contains(&rate), "rate is {rate} bit/s; it must be from 1 kbit/s to 10 Gbit/s");
            ensure!(self.queue_bytes >= FRAME_BYTES, "queue_bytes is {}; a full packet has {FRAME_BYTES}", self.queue_bytes);
        }
        Ok(())
    }
}

impl Default for LinkShape {
    fn default() -> Self {
        Self::free()
    }
}
