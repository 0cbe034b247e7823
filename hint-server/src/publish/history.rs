//! The last ten minutes, a sample a second, so that the page shows a past as soon as it is opened.

use std::{collections::VecDeque, time::Duration};

use serde::Serialize;

use crate::engine::EngineState;

const EVERY: Duration = Duration::from_secs(1);
const KEPT: usize = 600;

/// One second of the host.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// Counts up from the server's start.
    pub seq: u64,
    /// Milliseconds since the server's start.
    pub at_ms: u64,
    /// The aggregate's, at the end of the second.
    pub health: f64,
    /// Tokens whose bytes were acknowledged, by the bytes of a usual token.
    pub tokens_per_s: f64,
    pub active: u64,
    pub network_limited: u64,
    pub queued_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineState>,
}

/// Sums as of some moment, from which samples are made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moment {
    pub at: Duration,
    pub health: f64,
    pub delivered_bytes: u64,
    pub active: u64,
    pub network_limited: u64,
    pub queued_bytes: u64,
}

#[derive(Debug, Default)]
pub struct History {
    samples: VecDeque<Sample>,
    last: Moment,
}

impl History {
    pub fn is_due(&self, at: Duration) -> bool {
        at >= self.last.at + EVERY
    }

    pub fn add(&mut self, now: Moment, bytes_per_token: f64, engine: Option<EngineState>) {
        let seconds = now.at.saturating_sub(self.last.at).as_secs_f64();
        let bytes = now.delivered_bytes.saturating_sub(self.last.delivered_bytes) as f64;
        if self.samples.len() == KEPT {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample {
            seq: self.samples.back().map_or(1, |sample| sample.seq + 1),
            at_ms: now.at.as_millis() as u64,
            health: now.health,
            tokens_per_s: if seconds > 0.0 { bytes / bytes_per_token / seconds } else { 0.0 },
            active: now.active,
            network_limited: now.network_limited,
            queued_bytes: now.queued_bytes,
            engine,
        });
        self.last = now;
    }

    /// Those after the one with this number, oldest first.
    pub fn after(&self, seq: u64) -> Vec<Sample> {
        self.samples.iter().filter(|sample| sample.seq > seq).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_ten_minutes_and_makes_rates_of_counts() {
        let mut history = History::default();
        for second in 1..=700 {
            let at = Duration::from_secs(second);
            assert!(history.is_due(at) && !history.is_due(at - Duration::from_millis(1)));
            history.add(Moment { at, health: 1.0, delivered_bytes: second * 2200, ..Moment::default() }, 220.0, None);
        }
        let all = history.after(0);
        assert_eq!((all.len(), all[0].seq, all[599].seq), (600, 101, 700));
        assert!(all.iter().all(|sample| sample.tokens_per_s == 10.0));
        assert_eq!(history.after(698).len(), 2);
    }
}
