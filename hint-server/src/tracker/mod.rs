//! What is known of every connection, and what of it changed since it was last published.
//! Pure: looks and the time are passed in.

mod tracked;

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    net::SocketAddr,
    time::Duration,
};

use tokenflow_hint_api::{Connection, Hint, HintEvent, HintMetrics, Source};
use tokenflow_score::aggregate;

use crate::probe::{Identity, Look};
use tracked::{Totals, Tracked, age_ms, rate_differs};

/// A connection that no look has seen for this long is forgotten; only a failing probe lets it come to that.
const EXPIRES: Duration = Duration::from_secs(2);

pub struct Tracker {
    connections: HashMap<u64, Tracked>,
    /// Cookies of the connections that are not cold: all that rounds between two whole ones, publications and the aggregate look at.
    hot: Vec<u64>,
    /// Where the last slice of the hot ones ended.
    next_slice: usize,
    /// Cookies by the peer's address, for those who ask by it.
    peers: HashMap<SocketAddr, Vec<u64>>,
    /// Over all connections, as of their latest looks.
    totals: Totals,
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

impl Tracker {
    pub fn new(source: Source, bytes_per_token: f64) -> Self {
        Self {
            connections: HashMap::new(),
            hot: Vec::new(),
            next_slice: 0,
            peers: HashMap::new(),
            totals: Totals::default(),
            bytes_per_token,
            source,
            looked_at: Duration::ZERO,
            seq: 0,
            published: None,
            removed: Vec::new(),
        }
    }

    /// Takes in a whole round of looks: [`Self::observe_some`] of all of them, then [`Self::end_round`].
    pub fn observe(&mut self, at: Duration, source: Source, looks: &[Look]) {
        self.observe_some(at, source, looks);
        self.end_round(at);
    }

    /// Takes in looks; connections without one stay as they are.
    pub fn observe_some(&mut self, at: Duration, source: Source, looks: &[Look]) {
        (self.looked_at, self.source) = (at, source);
        for look in looks {
            let tracked = self.connections.entry(look.identity.cookie).or_insert_with(|| {
                self.peers.entry(look.identity.peer).or_default().push(look.identity.cookie);
                Tracked::new(look, at)
            });
            (tracked.source, tracked.seen_at, tracked.missed) = (look.source, at, false);
            if !tracked.hot {
                if tracked.says_nothing_new(&look.measurement) {
                    continue;
                }
                tracked.hot = true;
                self.hot.push(look.identity.cookie);
            }
            tracked.observe(&look.measurement, &mut self.totals);
        }
    }

    /// A whole round is in. A connection that two rounds in succession lack is gone (sockets that move in the kernel's table while it is
    /// listed may be passed over once); one that the kernel said to be closed is gone with the first.
    pub fn end_round(&mut self, at: Duration) {
        self.keep(|tracked| tracked.seen_at == at || !(tracked.closed || std::mem::replace(&mut tracked.missed, true)));
    }

    /// These were looked for and not all found: as [`Self::end_round`], for them alone.
    pub fn end_partial_round(&mut self, at: Duration, asked: &[Identity]) {
        let mut gone = Vec::new();
        for identity in asked {
            let Some(tracked) = self.connections.get_mut(&identity.cookie) else { continue };
            if tracked.seen_at != at && (tracked.closed || std::mem::replace(&mut tracked.missed, true)) {
                gone.push(identity.cookie);
            }
        }
        self.forget(&gone);
    }

    /// At most `most` of the connections that something happens on, in turn.
    pub fn hot_slice(&mut self, most: usize) -> Vec<Identity> {
        let count = self.hot.len().min(most);
        let slice = (0..count).map(|step| self.hot[(self.next_slice + step) % self.hot.len()]);
        let identities = slice.filter_map(|cookie| Some(self.connections.get(&cookie)?.identity)).collect();
        self.next_slice = if self.hot.is_empty() { 0 } else { (self.next_slice + count) % self.hot.len() };
        identities
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
        let gone: Vec<u64> = self.connections.iter_mut().filter_map(|(&cookie, tracked)| (!stays(tracked)).then_some(cookie)).collect();
        self.forget(&gone);
    }

    fn forget(&mut self, cookies: &[u64]) {
        for cookie in cookies {
            let Some(tracked) = self.connections.remove(cookie) else { continue };
            self.totals.replace(&tracked.counted, &Totals::default());
            if tracked.published.is_some() {
                self.removed.push(*cookie);
            }
            if let Entry::Occupied(mut cookies) = self.peers.entry(tracked.identity.peer) {
                cookies.get_mut().retain(|other| other != cookie);
                if cookies.get().is_empty() {
                    cookies.remove();
                }
            }
        }
        if !cookies.is_empty() {
            self.hot.retain(|cookie| self.connections.contains_key(cookie));
        }
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
        self.hot_connections()
            .any(|tracked| tracked.score.activity_bytes(now) > 0.0 || tracked.score.last().is_some_and(|look| look.undelivered_bytes > 0))
    }

    /// Bytes that peers acknowledged since the start, over all connections that ever were.
    pub fn delivered_bytes(&self) -> u64 {
        self.totals.delivered_bytes
    }

    pub fn bytes_per_token(&self) -> f64 {
        self.bytes_per_token
    }

    /// The connections in most trouble, at most so many: least health first, then the largest backlog, then who carries most.
    pub fn worst(&self, now: Duration, most: usize) -> Vec<Connection> {
        let mut all: Vec<(&Tracked, f64)> = self.connections.values().map(|tracked| (tracked, tracked.score.health(now))).collect();
        let order = |a: &(&Tracked, f64), b: &(&Tracked, f64)| {
            let activity = |tracked: &Tracked| tracked.score.activity_bytes(now);
            (a.1.total_cmp(&b.1))
                .then_with(|| b.0.counted.undelivered_bytes.cmp(&a.0.counted.undelivered_bytes))
                .then_with(|| activity(b.0).total_cmp(&activity(a.0)))
                .then_with(|| a.0.identity.cookie.cmp(&b.0.identity.cookie))
        };
        if all.len() > most && most > 0 {
            all.select_nth_unstable_by(most - 1, order);
        }
        all.truncate(most);
        all.sort_unstable_by(order);
        all.iter().map(|(tracked, _)| tracked.connection(now, self.bytes_per_token)).collect()
    }

    /// Connections that the network limits.
    pub fn network_limited(&self) -> usize {
        self.totals.network_limited
    }

    /// Those that are not cold.
    fn hot_connections(&self) -> impl Iterator<Item = &Tracked> {
        self.hot.iter().filter_map(|cookie| self.connections.get(cookie))
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
        let mut metrics =
            HintMetrics { retrans: self.totals.retransmits, queued_bytes: self.totals.undelivered_bytes, ..HintMetrics::default() };
        let mut connections = 0;
        // A connection that is cold carries nothing, and so weighs nothing.
        for tracked in self.hot_connections() {
            let activity = tracked.score.activity_bytes(now);
            let Some(look) = tracked.score.last().filter(|_| activity > 0.0) else { continue };
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
        let health = aggregate(self.hot_connections().map(|tracked| (tracked.score.health(now), tracked.score.activity_bytes(now))));
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
        self.peers
            .get(&peer)?
            .iter()
            .filter_map(|cookie| self.connections.get(cookie))
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
        HintEvent {
            hint: self.hint(now),
            changed: self.connections(now),
            removed: Vec::new(),
            remote: Vec::new(),
            remote_removed: Vec::new(),
        }
    }

    /// What changed noticeably since the last call that returned something.
    pub fn take_change(&mut self, now: Duration) -> Option<HintEvent> {
        let mut changed = Vec::new();
        let (connections, bytes_per_token) = (&mut self.connections, self.bytes_per_token);
        self.hot.retain(|cookie| {
            let Some(tracked) = connections.get_mut(cookie) else { return false };
            if let Some(connection) = tracked.take_change(now, bytes_per_token) {
                changed.push(connection);
            }
            tracked.hot = !tracked.is_cold(now);
            tracked.hot
        });
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
        Some(HintEvent { hint, changed, removed, remote: Vec::new(), remote_removed: Vec::new() })
    }
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

fn aggregate_differs(old: &Hint, new: &Hint) -> bool {
    (old.health_factor - new.health_factor).abs() >= 0.005
        || (old.health_factor != new.health_factor && matches!(new.health_factor, 0.0 | 1.0))
        || rate_differs(old.token_rate, new.token_rate)
        || old.connections != new.connections
        || old.source != new.source
}

#[cfg(test)]
mod tests;
