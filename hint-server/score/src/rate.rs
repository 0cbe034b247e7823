//! How fast a connection delivers, and whether the network or the application is what limits it.
//!
//! The kernel's own rate sample counts every skb as a whole segment, so it overstates streams of 220-byte chunks up to six times; here the
//! rate is taken from acknowledged bytes over the time in which there was something to acknowledge, and the kernel's is its upper bound.

use std::time::Duration;

use crate::{Measurement, delay_slack, measurement::increase};

/// A sample covers at least this long.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// Time constant of the average over samples.
const AVERAGE: Duration = Duration::from_millis(300);
/// Without an acknowledgement for this long (two round trips where that is more) a connection is stalled.
const STALL: Duration = Duration::from_millis(500);
/// A rate measured longer ago says nothing of the link of today where the kernel has a sample of its own.
const EXPIRES: Duration = Duration::from_secs(10);
/// Looks further apart than this say nothing of what lay between them.
const MAX_GAP: Duration = Duration::from_secs(1);

/// Bytes acknowledged per second while busy.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeliveryRate {
    average: Option<f64>,
    /// When the average last took a sample in: idle time does not lower it, but lets the next sample weigh more.
    sampled_at: Duration,
    /// Acknowledged by the latest look that saw any progress.
    last_step_bytes: u64,
    open: Option<Interval>,
}

/// A busy time being measured; it opens and closes on an acknowledgement, so that the grain of the ACKs does not bias it.
#[derive(Clone, Copy, Debug)]
struct Interval {
    since: Duration,
    acked_bytes: u64,
    /// False until the first acknowledgement of a busy time: that first round trip fills the pipe and says nothing of its rate.
    flowing: bool,
}

impl DeliveryRate {
    pub(crate) fn observe(&mut self, last: &Measurement, now: &Measurement) {
        let gap = now.at.saturating_sub(last.at);
        if last.undelivered_bytes == 0 || now.undelivered_bytes == 0 || gap > MAX_GAP {
            self.open = None;
            return;
        }
        let open = self.open.get_or_insert(Interval { since: last.at, acked_bytes: 0, flowing: false });
        let step = increase(last.bytes_acked, now.bytes_acked);
        if step == 0 {
            return;
        }
        self.last_step_bytes = step;
        open.acked_bytes = open.acked_bytes.saturating_add(step);
        let elapsed = now.at.saturating_sub(open.since);
        if !open.flowing {
            *open = Interval { since: now.at, acked_bytes: 0, flowing: true };
        } else if elapsed >= MIN_INTERVAL {
            let sample = open.acked_bytes as f64 / elapsed.as_secs_f64();
            let age = now.at.saturating_sub(self.sampled_at);
            let share = 1.0 - (-age.as_secs_f64() / AVERAGE.as_secs_f64()).exp();
            self.sampled_at = now.at;
            self.average = Some(self.average.map_or(sample, |average| average + (sample - average) * share));
            *open = Interval { since: now.at, acked_bytes: 0, flowing: true };
        }
    }

    /// Bytes/s at the time of `now`; `None` before anything is known.
    pub(crate) fn bytes_per_s(&self, now: &Measurement, min_rtt: Duration) -> Option<f64> {
        let kernel = (now.delivery_rate_bytes_per_s > 0).then_some(now.delivery_rate_bytes_per_s as f64);
        let expired = kernel.is_some() && now.at.saturating_sub(self.sampled_at) > EXPIRES;
        [self.average.filter(|_| !expired), kernel, self.stalled_bound(now.at, min_rtt)].into_iter().flatten().reduce(f64::min)
    }

    /// In a stall at most one more step can be about to arrive, however fast the connection was before.
    fn stalled_bound(&self, at: Duration, min_rtt: Duration) -> Option<f64> {
        let open = self.open?;
        let elapsed = at.saturating_sub(open.since);
        let bytes = open.acked_bytes.saturating_add(self.last_step_bytes).max(1);
        (elapsed >= STALL.max(min_rtt * 2)).then(|| bytes as f64 / elapsed.as_secs_f64())
    }
}

/// Whether a standing backlog shows that the network is the limit, judged once per interval of two empty round trips and 100 ms.
///
/// As in CoDel the least backlog of an interval counts: bursts of the application drain within it, a standing queue does not. A backlog
/// alone is no proof, since on a 200 ms path some bytes are always in flight; so either the time that a byte spends between `write` and
/// its acknowledgement (backlog / rate, Little's law) or the measured round trip must exceed the empty path's by more than the slack. The
/// first sees queues in the socket and closed receive windows, the second sees a stream that is paced to a few chunks on a slow link,
/// which the kernel calls application-limited. The kernel's bit alone proves nothing either: a sample that was not application-limited
/// stays until a faster one comes, on a healthy stream for ever. It only lowers the threshold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backlog {
    interval: Option<(Duration, u64)>,
    last_at: Duration,
    limited: bool,
}

impl Backlog {
    pub(crate) fn network_limited(&self) -> bool {
        self.limited
    }

    pub(crate) fn observe(&mut self, now: &Measurement, rate: Option<f64>, min_rtt: Duration) {
        if now.at.saturating_sub(self.last_at) > MAX_GAP {
            self.interval = None;
            self.limited = false;
        }
        self.last_at = now.at;
        let Some((since, least)) = &mut self.interval else {
            self.limited = false;
            self.interval = (now.undelivered_bytes > 0).then_some((now.at, now.undelivered_bytes));
            return;
        };
        *least = (*least).min(now.undelivered_bytes);
        if now.at.saturating_sub(*since) < min_rtt * 2 + Duration::from_millis(100) {
            return;
        }
        self.limited = is_standing(*least, now, rate, min_rtt);
        self.interval = (now.undelivered_bytes > 0).then_some((now.at, now.undelivered_bytes));
    }
}

fn is_standing(least_bytes: u64, now: &Measurement, rate: Option<f64>, min_rtt: Duration) -> bool {
    if least_bytes == 0 {
        return false;
    }
    let slack = delay_slack(min_rtt).as_secs_f64();
    let sure = min_rtt.as_secs_f64() + 1.5 * slack;
    let enough = if now.app_limited == Some(false) { min_rtt.as_secs_f64() + slack } else { sure };
    f64::from(now.srtt_us) / 1e6 > sure || rate.is_some_and(|rate| least_bytes as f64 / rate > enough)
}

#[cfg(test)]
#[path = "rate_tests.rs"]
mod tests;
