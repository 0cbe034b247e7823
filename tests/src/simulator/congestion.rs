//! How many segments a sender may have in flight: cubic (RFC 9438, with HyStart's exit from slow start) and a BBR without its probes.
//!
//! Only what shapes queues is kept: growth while the window is what limits, the fall after a loss, and where growth stops.

use std::collections::VecDeque;

use super::time::{MILLISECOND, Nanos, seconds};

/// Segments in flight before anything is known (RFC 6928).
const INITIAL_WINDOW: f64 = 10.0;
/// Below this HyStart does not look.
const HYSTART_LEAST: f64 = 16.0;
const CUBIC_C: f64 = 0.4;
const CUBIC_BETA: f64 = 0.7;
/// Round trips over which BBR keeps its greatest rate, and how many bandwidth-delay products it lets be in flight.
const BBR_ROUNDS: Nanos = 10;
const BBR_GAIN: f64 = 2.0;
/// Segments more, for those that wait to be sent together.
const BBR_QUANTUM: f64 = 3.0;

/// What an acknowledgement says.
#[derive(Clone, Copy, Debug)]
pub struct Acked {
    pub at: Nanos,
    pub rtt: Nanos,
    pub min_rtt: Nanos,
    /// Segments/s between its sending and now.
    pub segments_per_s: f64,
    /// Whether the window was what kept the sender from sending more.
    pub window_limited: bool,
    /// Nothing more was to be sent, so that the rate is the application's.
    pub app_limited: bool,
}

#[derive(Clone, Debug)]
pub enum CongestionControl {
    Cubic(Cubic),
    Bbr(Bbr),
}

impl CongestionControl {
    pub fn cubic() -> Self {
        Self::Cubic(Cubic { window: INITIAL_WINDOW, threshold: f64::INFINITY, before_loss: 0.0, epoch: None })
    }

    pub fn bbr() -> Self {
        Self::Bbr(Bbr { window: INITIAL_WINDOW, rates: VecDeque::new() })
    }

    /// Segments that may be in flight.
    pub fn window(&self) -> f64 {
        match self {
            Self::Cubic(cubic) => cubic.window,
            Self::Bbr(bbr) => bbr.window,
        }
    }

    pub fn on_ack(&mut self, acked: Acked) {
        match self {
            Self::Cubic(cubic) => cubic.on_ack(acked),
            Self::Bbr(bbr) => bbr.on_ack(acked),
        }
    }

    /// A segment was lost; called at most once in a round trip.
    pub fn on_loss(&mut self) {
        match self {
            Self::Cubic(cubic) => cubic.on_loss(),
            // Loss is not BBR's signal.
            Self::Bbr(_) => (),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Cubic {
    window: f64,
    threshold: f64,
    before_loss: f64,
    /// When it began to grow back, and how long that takes.
    epoch: Option<(Nanos, f64)>,
}

impl Cubic {
    fn on_ack(&mut self, acked: Acked) {
        if !acked.window_limited {
            return;
        }
        if self.window < self.threshold {
            self.window += 1.0;
            let slack = (acked.min_rtt / 8).clamp(4 * MILLISECOND, 16 * MILLISECOND);
            if self.window >= HYSTART_LEAST && acked.rtt > acked.min_rtt + slack {
                self.threshold = self.window;
            }
            return;
        }
        let before_loss = self.before_loss.max(self.window);
        let (began, k) = *self.epoch.get_or_insert_with(|| {
            let k = ((before_loss - self.window) / CUBIC_C).cbrt();
            (acked.at, k)
        });
        self.before_loss = if began == acked.at { before_loss } else { self.before_loss };
        let t = seconds(acked.at - began) + seconds(acked.min_rtt);
        let target = (self.before_loss + CUBIC_C * (t - k).powi(3)).clamp(self.window, self.window * 1.5);
        self.window += (target - self.window) / self.window;
    }

    fn on_loss(&mut self) {
        self.before_loss = self.window;
        self.window = (self.window * CUBIC_BETA).max(2.0);
        self.threshold = self.window;
        self.epoch = None;
    }
}

#[derive(Clone, Debug)]
pub struct Bbr {
    window: f64,
    /// Rates that no later one exceeds, greatest first.
    rates: VecDeque<(Nanos, f64)>,
}

impl Bbr {
    fn on_ack(&mut self, acked: Acked) {
        // Neither counts a lower rate that was the application's, nor does it let a greater one expire.
        if !acked.app_limited || self.rates.front().is_none_or(|&(_, greatest)| acked.segments_per_s >= greatest) {
            while self.rates.back().is_some_and(|&(_, rate)| rate <= acked.segments_per_s) {
                self.rates.pop_back();
            }
            self.rates.push_back((acked.at, acked.segments_per_s));
            let oldest = acked.at.saturating_sub(BBR_ROUNDS * acked.rtt);
            while self.rates.front().is_some_and(|&(at, _)| at < oldest) {
                self.rates.pop_front();
            }
        }
        let greatest = self.rates.front().map_or(0.0, |&(_, rate)| rate);
        let target = (BBR_GAIN * greatest * seconds(acked.min_rtt) + BBR_QUANTUM).max(4.0);
        // It grows by what is acknowledged, and only where it is used.
        self.window = if target < self.window {
            target
        } else if acked.window_limited {
            self.window + 1.0
        } else {
            self.window
        };
    }
}
