//! What the engine knows of one stream's link: the hint server's score of what TCP says, as old as it is when it comes.

use tokenflow_score::{ConnectionScore, Measurement};

use super::time::{Nanos, duration};

/// One connection's entry in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hint {
    pub health: f64,
    /// Bytes/s, while the network is the limit.
    pub delivery_rate: Option<f64>,
    pub min_rtt_us: u32,
    activity_bytes: f64,
}

impl Hint {
    const UNKNOWN: Self = Self { health: 1.0, delivery_rate: None, min_rtt_us: 0, activity_bytes: 0.0 };

    /// Health, and its weight in the aggregate.
    pub fn weighted(&self) -> (f64, f64) {
        (self.health, self.activity_bytes)
    }
}

/// A connection as the hint server sees it, and as the engine does.
#[derive(Clone, Debug)]
pub struct HintSource {
    score: ConnectionScore,
    measured: Hint,
    pub published: Hint,
}

impl Default for HintSource {
    fn default() -> Self {
        Self { score: ConnectionScore::new(), measured: Hint::UNKNOWN, published: Hint::UNKNOWN }
    }
}

impl HintSource {
    pub fn look(&mut self, now: Nanos, measurement: &Measurement) {
        self.score.observe(measurement);
        let at = duration(now);
        self.measured = Hint {
            health: self.score.health(at),
            delivery_rate: self.score.delivery_rate().filter(|_| self.score.network_limited()),
            min_rtt_us: self.score.min_rtt().as_micros() as u32,
            activity_bytes: self.score.activity_bytes(at),
        };
    }

    /// The last look reaches the engine.
    pub fn publish(&mut self) {
        self.published = self.measured;
    }
}
