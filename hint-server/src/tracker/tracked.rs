//! One connection: its score, what it adds to the sums over all, and whether what changed is worth telling.

use std::time::Duration;

use tokenflow_hint_api::{Connection, Source, Terms};
use tokenflow_score::{ConnectionScore, Measurement};

use crate::probe::{Identity, Look};

/// An active connection is published at least this often, however little it changes.
const REFRESH: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) retransmits: u64,
    pub(super) undelivered_bytes: u64,
    pub(super) network_limited: usize,
    /// Rises only.
    pub(super) delivered_bytes: u64,
}

pub(super) struct Tracked {
    pub(super) identity: Identity,
    pub(super) score: ConnectionScore,
    pub(super) source: Source,
    pub(super) seen_at: Duration,
    /// Whether the latest round of looks lacked it.
    pub(super) missed: bool,
    /// Whether the kernel said that it closed.
    pub(super) closed: bool,
    /// Whether it is listed in the tracker's list of them.
    pub(super) hot: bool,
    /// What it adds to the tracker's totals.
    pub(super) counted: Totals,
    /// What subscribers last heard of it.
    pub(super) published: Option<Published>,
}

/// What decides whether a change is worth telling.
#[derive(Clone, Copy, Debug)]
pub(super) struct Published {
    at: Duration,
    health: f64,
    terms: Terms,
    token_rate: Option<f64>,
    srtt_us: u32,
    min_rtt_us: u32,
    retransmits: u64,
    undelivered_bytes: u64,
    source: Source,
}

impl Totals {
    /// One connection's share changes from `old` to `new`.
    pub(super) fn replace(&mut self, old: &Self, new: &Self) {
        self.retransmits = self.retransmits.wrapping_sub(old.retransmits).wrapping_add(new.retransmits);
        self.undelivered_bytes = self.undelivered_bytes.wrapping_sub(old.undelivered_bytes).wrapping_add(new.undelivered_bytes);
        self.network_limited = self.network_limited - old.network_limited + new.network_limited;
    }
}

impl Tracked {
    pub(super) fn new(look: &Look, at: Duration) -> Self {
        Self {
            identity: look.identity,
            score: ConnectionScore::new(),
            source: look.source,
            seen_at: at,
            missed: false,
            closed: false,
            hot: false,
            counted: Totals::default(),
            published: None,
        }
    }

    pub(super) fn observe(&mut self, look: &Measurement, totals: &mut Totals) {
        let acked = self.score.last().map_or(0, |last| look.bytes_acked.saturating_sub(last.bytes_acked));
        totals.delivered_bytes = totals.delivered_bytes.saturating_add(acked);
        self.score.observe(look);
        let counted = Totals {
            retransmits: look.retransmits,
            undelivered_bytes: look.undelivered_bytes,
            network_limited: self.score.network_limited().into(),
            delivered_bytes: 0,
        };
        totals.replace(&self.counted, &counted);
        self.counted = counted;
    }

    /// Whether it carries nothing, has nothing to deliver and is as healthy as can be: only another look can change that.
    pub(super) fn is_cold(&self, now: Duration) -> bool {
        self.score.activity_bytes(now) <= 0.0
            && self.counted.undelivered_bytes == 0
            && self.score.terms().least() >= 1.0
            && self.score.health(now) >= 1.0
    }

    /// Whether a look at an idle connection is the last one over again.
    pub(super) fn says_nothing_new(&self, look: &Measurement) -> bool {
        self.score.last().is_some_and(|last| Measurement { at: last.at, ..*look } == *last)
    }

    /// What to tell of it, if that differs enough from what was told.
    pub(super) fn take_change(&mut self, now: Duration, bytes_per_token: f64) -> Option<Connection> {
        let current = Published {
            at: now,
            health: self.score.health(now),
            terms: self.terms(),
            token_rate: self.score.token_rate(bytes_per_token),
            srtt_us: self.score.last().map_or(0, |look| look.srtt_us),
            min_rtt_us: self.min_rtt_us(),
            retransmits: self.counted.retransmits,
            undelivered_bytes: self.counted.undelivered_bytes,
            source: self.source,
        };
        let differs = self.published.is_none_or(|published| {
            let refresh = now.saturating_sub(published.at) >= REFRESH && self.score.activity_bytes(now) > 0.0;
            refresh || differs(&published, &current)
        });
        differs.then(|| {
            self.published = Some(current);
            self.connection(now, bytes_per_token)
        })
    }

    fn terms(&self) -> Terms {
        let terms = self.score.terms();
        Terms { delay: terms.delay, loss: terms.loss, queue: terms.queue }
    }

    fn min_rtt_us(&self) -> u32 {
        u32::try_from(self.score.min_rtt().as_micros()).unwrap_or(u32::MAX)
    }

    pub(super) fn connection(&self, now: Duration, bytes_per_token: f64) -> Connection {
        let look = self.score.last().copied().unwrap_or_default();
        Connection {
            cookie: self.identity.cookie,
            local: self.identity.local,
            peer: self.identity.peer,
            health: self.score.health(now),
            terms: self.terms(),
            token_rate: self.score.token_rate(bytes_per_token),
            srtt_us: look.srtt_us,
            min_rtt_us: self.min_rtt_us(),
            retransmits: look.retransmits,
            undelivered_bytes: look.undelivered_bytes,
            delivery_rate_bytes_per_s: self.score.delivery_rate().unwrap_or(0.0) as u64,
            age_ms: age_ms(now, self.seen_at),
            source: self.source,
        }
    }
}

pub(super) fn age_ms(now: Duration, at: Duration) -> u64 {
    now.saturating_sub(at).as_millis() as u64
}

/// Whether a reader would act or show otherwise; jitter of a healthy connection is not worth an event.
fn differs(old: &Published, new: &Published) -> bool {
    let terms = [(old.terms.delay, new.terms.delay), (old.terms.loss, new.terms.loss), (old.terms.queue, new.terms.queue)];
    old.health != new.health
        || terms.iter().any(|(old, new)| (old - new).abs() >= 0.05)
        || rate_differs(old.token_rate, new.token_rate)
        || moved(old.srtt_us.into(), new.srtt_us.into(), 0.1, 2000.0)
        || moved(old.min_rtt_us.into(), new.min_rtt_us.into(), 0.1, 2000.0)
        || moved(old.undelivered_bytes as f64, new.undelivered_bytes as f64, 0.25, 600.0)
        // Where the network is the limit, a queue that is gone is news, however small it was.
        || (old.token_rate.is_some() && old.undelivered_bytes > 0 && new.undelivered_bytes == 0)
        || old.retransmits != new.retransmits
        || old.source != new.source
}

pub(super) fn rate_differs(old: Option<f64>, new: Option<f64>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => moved(old, new, 0.05, 0.1),
        (old, new) => old.is_some() != new.is_some(),
    }
}

/// By more than a share of the old value and more than a least amount.
fn moved(old: f64, new: f64, share: f64, least: f64) -> bool {
    (old - new).abs() > (old * share).max(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_of_a_slow_link_that_is_gone_is_told_however_small_it_was() {
        let told = |token_rate, undelivered_bytes| Published {
            at: Duration::ZERO,
            health: 1.0,
            terms: Terms { delay: 1.0, loss: 1.0, queue: 1.0 },
            token_rate,
            srtt_us: 100,
            min_rtt_us: 100,
            retransmits: 0,
            undelivered_bytes,
            source: Source::Ebpf,
        };
        let slow = Some(10.0);
        for (rate, old, new, is_news) in [
            (slow, 500, 0, true),
            (slow, 0, 500, false),
            (slow, 500, 100, false),
            (slow, 500, 1_200, true),
            (slow, 0, 0, false),
            (None, 500, 0, false),
        ] {
            assert_eq!(differs(&told(rate, old), &told(rate, new)), is_news, "{rate:?} {old} {new}");
        }
    }
}
