//! What is known of every connection, and what of it changed since it was last published.
//! Pure: looks and the time are passed in.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    time::Duration,
};

use tokenflow_hint_api::{Connection, Hint, HintEvent, HintMetrics, Source, Terms};
use tokenflow_score::{ConnectionScore, aggregate};

use crate::probe::{Identity, Look};

/// A connection that no look has seen for this long is forgotten; only a failing probe lets it come to that.
const EXPIRES: Duration = Duration::from_secs(2);
/// An active connection is published at least this often, however little it changes.
const REFRESH: Duration = Duration::from_secs(1);

pub struct Tracker {
    connections: HashMap<u64, Tracked>,
    bytes_per_token: f64,
    /// What the latest looks came from.
    source: Source,
    /// When the probe last answered.
    looked_at: Duration,
    /// Number of the latest change.
    seq: u64,
    /// The aggregate as last published.
    published: Option<Hint>,
    /// Published and gone since.
    removed: Vec<u64>,
}

struct Tracked {
    identity: Identity,
    score: ConnectionScore,
    source: Source,
    seen_at: Duration,
    /// Whether the latest round of looks lacked it.
    missed: bool,
    /// Whether the kernel said that it closed.
    closed: bool,
    /// What subscribers last heard of it, and when.
    published: Option<(Connection, Duration)>,
}

impl Tracker {
    pub fn new(source: Source, bytes_per_token: f64) -> Self {
        Self {
            connections: HashMap::new(),
            bytes_per_token,
            source,
            looked_at: Duration::ZERO,
            seq: 0,
            published: None,
            removed: Vec::new(),
        }
    }

    /// Takes in a whole round of looks. A connection that two rounds in succession lack is gone (sockets that move in the kernel's table
    /// while it is listed may be passed over once); one that the kernel said to be closed is gone with the first.
    pub fn observe(&mut self, at: Duration, source: Source, looks: &[Look]) {
        (self.looked_at, self.source) = (at, source);
        for look in looks {
            let tracked = self.connections.entry(look.identity.cookie).or_insert_with(|| Tracked {
                identity: look.identity,
                score: ConnectionScore::new(),
                source: look.source,
                seen_at: at,
                missed: false,
                closed: false,
                published: None,
            });
            tracked.score.observe(&look.measurement);
            (tracked.source, tracked.seen_at, tracked.missed) = (look.source, at, false);
        }
        self.keep(|tracked| tracked.seen_at == at || !(tracked.closed || std::mem::replace(&mut tracked.missed, true)));
    }

    /// The kernel said that these connections closed.
    pub fn closed(&mut self, cookies: &[u64]) {
        for cookie in cookies {
            if let Some(tracked) = self.connections.get_mut(cookie) {
                tracked.closed = true;
            }
        }
    }

    /// Forgets connections that were not seen for two seconds: without data their health counts as 1.
    pub fn expire(&mut self, now: Duration) {
        self.keep(|tracked| now.saturating_sub(tracked.seen_at) < EXPIRES);
    }

    fn keep(&mut self, mut stays: impl FnMut(&mut Tracked) -> bool) {
        let removed = &mut self.removed;
        self.connections.retain(|&cookie, tracked| {
            let stays = stays(tracked);
            if !stays && tracked.published.is_some() {
                removed.push(cookie);
            }
            stays
        });
    }

    /// Connections that are tracked.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Whether any connection carries bytes or has some to deliver.
    pub fn is_active(&self, now: Duration) -> bool {
        self.connections
            .values()
            .any(|tracked| tracked.score.activity_bytes(now) > 0.0 || tracked.score.last().is_some_and(|look| look.undelivered_bytes > 0))
    }

    /// Connections that the network limits.
    pub fn network_limited(&self) -> usize {
        self.connections.values().filter(|tracked| tracked.score.network_limited()).count()
    }

    pub fn source(&self) -> Source {
        self.source
    }

    /// The aggregate. Round-trip times and the token rate are activity-weighted means (the rate over connections that the network limits),
    /// the delivery rate is the sum over active connections, retransmissions and queued bytes are sums over all tracked ones.
    pub fn hint(&self, now: Duration) -> Hint {
        let mut rtt = WeightedMean::default();
        let mut min_rtt = WeightedMean::default();
        let mut token_rate = WeightedMean::default();
        let mut metrics = HintMetrics::default();
        let mut connections = 0;
        for tracked in self.connections.values() {
            let activity = tracked.score.activity_bytes(now);
            let Some(look) = tracked.score.last() else { continue };
            metrics.retrans = metrics.retrans.saturating_add(look.retransmits);
            metrics.queued_bytes = metrics.queued_bytes.saturating_add(look.undelivered_bytes);
            if activity <= 0.0 {
                continue;
            }
            connections += 1;
            rtt.add(look.srtt_us.into(), activity);
            min_rtt.add(tracked.score.min_rtt().as_micros() as f64, activity);
            metrics.delivery_rate = metrics.delivery_rate.saturating_add(tracked.score.delivery_rate().unwrap_or(0.0) as u64);
            if let Some(rate) = tracked.score.token_rate(self.bytes_per_token) {
                token_rate.add(rate, activity);
            }
        }
        metrics.rtt = rtt.mean().unwrap_or(0.0) as u64;
        metrics.min_rtt = min_rtt.mean().unwrap_or(0.0) as u64;
        let health = aggregate(self.connections.values().map(|tracked| (tracked.score.health(now), tracked.score.activity_bytes(now))));
        Hint {
            health_factor: health,
            health,
            token_rate: token_rate.mean(),
            metrics,
            source: self.source,
            connections,
            age_ms: age_ms(now, self.looked_at),
            seq: self.seq,
        }
    }

    /// The connection with this cookie.
    pub fn by_cookie(&self, cookie: u64, now: Duration) -> Option<Connection> {
        self.connections.get(&cookie).map(|tracked| tracked.connection(now, self.bytes_per_token))
    }

    /// The connection from this peer; the busiest where one port of the peer talks to several of ours.
    pub fn by_peer(&self, peer: SocketAddr, now: Duration) -> Option<Connection> {
        self.connections
            .values()
            .filter(|tracked| tracked.identity.peer == peer)
            .max_by(|a, b| a.score.activity_bytes(now).total_cmp(&b.score.activity_bytes(now)))
            .map(|tracked| tracked.connection(now, self.bytes_per_token))
    }

    /// One connection in the shape of the aggregate.
    pub fn hint_of(&self, connection: &Connection) -> Hint {
        Hint {
            health_factor: connection.health,
            health: connection.health,
            token_rate: connection.token_rate,
            metrics: HintMetrics {
                rtt: connection.srtt_us.into(),
                min_rtt: connection.min_rtt_us.into(),
                retrans: connection.retransmits,
                delivery_rate: connection.delivery_rate_bytes_per_s,
                queued_bytes: connection.undelivered_bytes,
            },
            source: connection.source,
            connections: 1,
            age_ms: connection.age_ms,
            seq: self.seq,
        }
    }

    /// Every connection, in the order of cookies (which is about that of their age).
    pub fn connections(&self, now: Duration) -> Vec<Connection> {
        let mut all: Vec<Connection> = self.connections.values().map(|tracked| tracked.connection(now, self.bytes_per_token)).collect();
        all.sort_unstable_by_key(|connection| connection.cookie);
        all
    }

    /// Everything, for a subscriber that begins.
    pub fn snapshot(&self, now: Duration) -> HintEvent {
        HintEvent { hint: self.hint(now), changed: self.connections(now), removed: Vec::new() }
    }

    /// What changed noticeably since the last call that returned something.
    pub fn take_change(&mut self, now: Duration) -> Option<HintEvent> {
        let mut changed = Vec::new();
        for tracked in self.connections.values_mut() {
            let connection = tracked.connection(now, self.bytes_per_token);
            let differs = match &tracked.published {
                None => true,
                Some((published, at)) => {
                    let active = tracked.score.activity_bytes(now) > 0.0;
                    differs(published, &connection) || (active && now.saturating_sub(*at) >= REFRESH)
                }
            };
            if differs {
                tracked.published = Some((connection.clone(), now));
                changed.push(connection);
            }
        }
        changed.sort_unstable_by_key(|connection| connection.cookie);
        let removed = std::mem::take(&mut self.removed);
        let mut hint = self.hint(now);
        let same = self.published.as_ref().is_some_and(|published| !aggregate_differs(published, &hint));
        if changed.is_empty() && removed.is_empty() && same {
            return None;
        }
        self.seq += 1;
        hint.seq = self.seq;
        self.published = Some(hint.clone());
        // A cookie is never used again, but a failing probe may lose a connection and find it.
        let present: HashSet<u64> = changed.iter().map(|connection| connection.cookie).collect();
        let removed = removed.into_iter().filter(|cookie| !present.contains(cookie)).collect();
        Some(HintEvent { hint, changed, removed })
    }
}

impl Tracked {
    fn connection(&self, now: Duration, bytes_per_token: f64) -> Connection {
        let look = self.score.last().copied().unwrap_or_default();
        let terms = self.score.terms();
        Connection {
            cookie: self.identity.cookie,
            local: self.identity.local,
            peer: self.identity.peer,
            health: self.score.health(now),
            terms: Terms { delay: terms.delay, loss: terms.loss, queue: terms.queue },
            token_rate: self.score.token_rate(bytes_per_token),
            srtt_us: look.srtt_us,
            min_rtt_us: u32::try_from(self.score.min_rtt().as_micros()).unwrap_or(u32::MAX),
            retransmits: look.retransmits,
            undelivered_bytes: look.undelivered_bytes,
            delivery_rate_bytes_per_s: self.score.delivery_rate().unwrap_or(0.0) as u64,
            age_ms: age_ms(now, look.at),
            source: self.source,
        }
    }
}

fn age_ms(now: Duration, at: Duration) -> u64 {
    now.saturating_sub(at).as_millis() as u64
}

#[derive(Default)]
struct WeightedMean {
    sum: f64,
    weight: f64,
}

impl WeightedMean {
    fn add(&mut self, value: f64, weight: f64) {
        self.sum += value * weight;
        self.weight += weight;
    }

    fn mean(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

/// Whether a reader would act or show otherwise; jitter of a healthy connection is not worth an event.
fn differs(old: &Connection, new: &Connection) -> bool {
    let terms = [(old.terms.delay, new.terms.delay), (old.terms.loss, new.terms.loss), (old.terms.queue, new.terms.queue)];
    old.health != new.health
        || terms.iter().any(|(old, new)| (old - new).abs() >= 0.05)
        || rate_differs(old.token_rate, new.token_rate)
        || moved(old.srtt_us.into(), new.srtt_us.into(), 0.1, 2000.0)
        || moved(old.min_rtt_us.into(), new.min_rtt_us.into(), 0.1, 2000.0)
        || moved(old.undelivered_bytes as f64, new.undelivered_bytes as f64, 0.25, 600.0)
        || old.retransmits != new.retransmits
        || old.source != new.source
}

fn aggregate_differs(old: &Hint, new: &Hint) -> bool {
    (old.health_factor - new.health_factor).abs() >= 0.005
        || (old.health_factor != new.health_factor && matches!(new.health_factor, 0.0 | 1.0))
        || rate_differs(old.token_rate, new.token_rate)
        || old.connections != new.connections
        || old.source != new.source
}

fn rate_differs(old: Option<f64>, new: Option<f64>) -> bool {
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
#[path = "tracker_tests.rs"]
mod tests;
