use std::time::Duration;

use tokenflow_score::{ConnectionScore, TcpInfo};

/// How often TCP_INFO of a socket is read at most.
const INTERVAL: Duration = Duration::from_millis(50);

/// The engine's own opinion of one connection, from TCP_INFO: the `local` probe, with the hint server's score code.
#[derive(Debug, Default)]
pub(super) struct LocalProbe {
    score: ConnectionScore,
    looked_at: Option<Duration>,
}

/// What the `local` probe says of a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LocalHealth {
    /// 0..=1; 1 before the first measurement.
    pub health: f64,
    /// 0 where not yet measured.
    pub min_rtt_us: u32,
    /// Bytes/s; known only while the network is the limit.
    pub delivery_rate: Option<f64>,
    /// Bytes acknowledged lately: the connection's weight in the aggregate.
    pub activity_bytes: f64,
}

impl LocalProbe {
    /// Looks at the socket through `look` (its TCP_INFO and undelivered bytes) unless it did so a moment ago.
    pub(super) fn health(&mut self, now: Duration, look: impl FnOnce() -> Option<(TcpInfo, u64)>) -> LocalHealth {
        if self.looked_at.is_none_or(|at| now >= at + INTERVAL) {
            self.looked_at = Some(now);
            if let Some((info, undelivered_bytes)) = look() {
                self.score.observe(&info.measurement(now, undelivered_bytes));
            }
        }
        LocalHealth {
            health: self.score.health(now),
            min_rtt_us: self.score.min_rtt().as_micros() as u32,
            delivery_rate: self.score.delivery_rate().filter(|_| self.score.network_limited()),
            activity_bytes: self.score.activity_bytes(now),
        }
    }
}
