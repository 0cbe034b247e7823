//! The health of one connection: the least of its terms for delay, loss and queue, smoothed over time.
//! Every output lies in 0..=1 and is a number whatever the probe reports; counters that wrap or restart cost one look.

use std::time::Duration;

use crate::{
    Activity, Measurement, delay_slack, loss::Loss, measurement::increase, min_rtt::MinRtt, rate::Backlog, rate::DeliveryRate,
    smoothing::Smoothed,
};

/// A backlog that takes this long to deliver brings the queue term to 0.
pub const QUEUE_TARGET: Duration = Duration::from_secs(1);
/// A round trip that was measured longer ago than this, on a connection that carried nothing since, says nothing of the link of today.
const DELAY_EXPIRES: Duration = Duration::from_secs(10);

/// The three terms of a score, each 0..=1; health follows their minimum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// How near the smoothed round trip is to the empty path's.
    pub delay: f64,
    /// How few segments had to be sent again.
    pub loss: f64,
    /// How soon the backlog would be delivered.
    pub queue: f64,
}

impl Terms {
    pub const HEALTHY: Self = Self { delay: 1.0, loss: 1.0, queue: 1.0 };

    pub fn least(&self) -> f64 {
        self.delay.min(self.loss).min(self.queue)
    }
}

/// What one connection's looks add up to.
#[derive(Clone, Debug)]
pub struct ConnectionScore {
    /// The latest look: counters are compared with it.
    last: Option<Measurement>,
    /// When the connection last had something to deliver or delivered it.
    last_busy: Duration,
    min_rtt: MinRtt,
    current_min_rtt: Option<Duration>,
    loss: Loss,
    rate: DeliveryRate,
    backlog: Backlog,
    activity: Activity,
    terms: Terms,
    smoothed: Smoothed,
}

impl Default for ConnectionScore {
    fn default() -> Self {
        Self::new()
    }
}

impl ConnectionScore {
    /// A connection of which nothing is known: healthy.
    pub fn new() -> Self {
        Self {
            last: None,
            last_busy: Duration::ZERO,
            min_rtt: MinRtt::default(),
            current_min_rtt: None,
            loss: Loss::default(),
            rate: DeliveryRate::default(),
            backlog: Backlog::default(),
            activity: Activity::default(),
            terms: Terms::HEALTHY,
            smoothed: Smoothed::default(),
        }
    }

    /// Takes in one look. One that is older than the latest is ignored.
    pub fn observe(&mut self, now: &Measurement) {
        let last = self.last.unwrap_or(*now);
        if now.at < last.at {
            return;
        }
        let acked = increase(last.bytes_acked, now.bytes_acked);
        if acked > 0 || now.undelivered_bytes > 0 || self.last.is_none() {
            self.last_busy = now.at;
        }
        self.activity.add(now.at, acked);
        self.current_min_rtt = self.min_rtt.observe(now.at, now.srtt_us, now.min_rtt_us);
        self.loss.observe(
            now.at,
            increase(last.data_segs_out, now.data_segs_out),
            increase(last.retransmits, now.retransmits),
            increase(last.rtos, now.rtos),
        );
        self.rate.observe(&last, now);
        self.last = Some(*now);
        self.backlog.observe(now, self.delivery_rate(), self.min_rtt());
        self.terms = Terms { delay: self.delay(now), loss: self.loss.term(now.at), queue: self.queue(now) };
        self.smoothed.aim(now.at, self.terms.least());
    }

    /// Health at `now`, 0..=1: on its way from the last look's health to the least term.
    pub fn health(&self, now: Duration) -> f64 {
        self.smoothed.reported(now)
    }

    /// The terms of the latest look, not smoothed.
    pub fn terms(&self) -> Terms {
        self.terms
    }

    /// Bytes/s that the connection delivers while it has something to deliver; `None` before that is known.
    pub fn delivery_rate(&self) -> Option<f64> {
        self.rate.bytes_per_s(self.last.as_ref()?, self.min_rtt())
    }

    /// Whether the network (or the reader behind it), not the application, is what limits the connection.
    pub fn network_limited(&self) -> bool {
        self.backlog.network_limited()
    }

    /// Tokens/s that the link carries; `None` where it is not the limit.
    pub fn token_rate(&self, bytes_per_token: f64) -> Option<f64> {
        let rate = self.delivery_rate().filter(|_| self.network_limited())? / bytes_per_token;
        rate.is_finite().then_some(rate)
    }

    /// The connection's weight in [`crate::aggregate`]; 0 once idle.
    pub fn activity_bytes(&self, now: Duration) -> f64 {
        self.activity.bytes(now)
    }

    /// Round trip of the empty path; zero before the first is measured.
    pub fn min_rtt(&self) -> Duration {
        self.current_min_rtt.unwrap_or_default()
    }

    /// The latest look.
    pub fn last(&self) -> Option<&Measurement> {
        self.last.as_ref()
    }

    fn delay(&self, now: &Measurement) -> f64 {
        let Some(min_rtt) = self.current_min_rtt.filter(|_| now.srtt_us > 0) else { return 1.0 };
        if now.at.saturating_sub(self.last_busy) > DELAY_EXPIRES {
            return 1.0;
        }
        let healthy = min_rtt + delay_slack(min_rtt);
        (healthy.as_secs_f64() / (f64::from(now.srtt_us) / 1e6)).clamp(0.0, 1.0)
    }

    fn queue(&self, now: &Measurement) -> f64 {
        let Some(rate) = self.delivery_rate().filter(|_| self.network_limited() && now.undelivered_bytes > 0) else { return 1.0 };
        (1.0 - now.undelivered_bytes as f64 / rate / QUEUE_TARGET.as_secs_f64()).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "properties.rs"]
mod properties;
