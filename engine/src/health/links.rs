use std::{
    cell::Cell,
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokenflow_hint_api::{HintState, RemoteConnection, Subscriber};
use tokenflow_score::aggregate;

use super::{
    Origin, StreamMeter,
    beyond::{Beyond, Reading},
    coalesce::LinkNote,
};
use crate::{
    metrics::HintStatus,
    scheduler::{Network, SequenceId, StreamSignal, pacing::MAX_UNDELIVERED_BYTES},
};

/// A stream's send queue is looked at again after this long, or after [`LOOK_BYTES`] more output, whichever is first.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
const LOOK_BYTES: u64 = 2048;

/// A stream with more than this undelivered may be waiting for credit: its queue is looked at in every step.
const BUSY_BYTES: u64 = 512;

/// Links of the streams that are running: the hint server's word where it is fresh, else the engine's own TCP_INFO (`local`).
///
/// Owned by the engine's thread. Nothing here waits: hints are a snapshot, sockets are asked by system calls that do not block.
pub struct Links {
    hints: Arc<Subscriber>,
    /// The hint server's state for the step being planned; `None` when it is stale or unreachable.
    snapshot: Option<Arc<HintState>>,
    streams: HashMap<SequenceId, Link>,
    now: Duration,
}

/// What is remembered about one stream's link between looks.
struct Link {
    meter: Arc<StreamMeter>,
    queue: Cell<QueueLook>,
    beyond: Cell<Beyond>,
}

/// The send queue at the last look, and how much the stream had produced by then.
#[derive(Clone, Copy)]
struct QueueLook {
    at: Duration,
    undelivered_bytes: u64,
    produced_bytes: u64,
}

impl Links {
    pub fn new(hints: Subscriber) -> Self {
        Self { hints: Arc::new(hints), snapshot: None, streams: HashMap::new(), now: Duration::ZERO }
    }

    pub fn open(&mut self, id: SequenceId, meter: Arc<StreamMeter>) {
        let queue = Cell::new(QueueLook { at: self.now, undelivered_bytes: 0, produced_bytes: meter.produced_bytes() });
        self.streams.insert(id, Link { meter, queue, beyond: Cell::default() });
    }

    pub fn close(&mut self, id: SequenceId) {
        if let Some(link) = self.streams.remove(&id) {
            link.meter.connection().forget_beyond();
        }
    }

    /// Takes the hint server's latest snapshot; called once before each plan.
    pub fn refresh(&mut self, now: Duration) {
        self.now = now;
        self.snapshot = self.hints.snapshot();
    }

    /// Output of all streams that their clients have not acknowledged, as of the last looks and with all that was made since.
    pub fn undelivered_bytes(&self) -> u64 {
        self.streams.values().map(Link::undelivered_bound).sum()
    }

    /// How the hint server stands, for whoever asks from another thread; `health_factor` holds the bits of the one in use.
    pub fn status(&self, health_factor: Arc<AtomicU64>) -> impl Fn() -> HintStatus + Send + Sync + 'static {
        let hints = self.hints.clone();
        move || {
            let state = hints.snapshot();
            HintStatus {
                // The loop rests while nothing runs; the hint server does not.
                health_factor: state.as_ref().map_or_else(|| f64::from_bits(health_factor.load(Relaxed)), |state| state.hint.health_factor),
                age: hints.last_heard().map(|at| at.elapsed()),
                connected: state.is_some(),
            }
        }
    }

    pub fn health(&self, id: SequenceId) -> f64 {
        self.streams.get(&id).map_or(1.0, |link| self.view(link).health)
    }

    /// What all sources say together (see the module).
    fn view(&self, link: &Link) -> LinkView {
        let (client, hop) = (link.meter.client(), self.hop(link));
        let beyond = client.origin.and_then(|origin| self.beyond(origin));
        let measured = if client.proxied { beyond.is_some() } else { hop.min_rtt_us > 0 };
        let view = beyond.map_or(hop, |beyond| hop.and(beyond));
        LinkView { health: view.health.min(client.health(measured)), ..view }
    }

    /// The client's connection to the gateway; none where the hint server does not know it or sees no trouble.
    fn beyond(&self, origin: Origin) -> Option<LinkView> {
        let state = self.snapshot.as_ref()?;
        let own = match origin {
            Origin::Cookie(cookie) => state.connections.get(&cookie),
            Origin::Peer(peer) => state.by_peer(peer),
        };
        match (own, origin) {
            (Some(own), _) => Some(LinkView {
                health: own.health,
                min_rtt_us: own.min_rtt_us,
                ..LinkView::limited(own.token_rate.map(|_| own.delivery_rate_bytes_per_s), own.undelivered_bytes)
            }),
            (None, Origin::Peer(peer)) => state.remote.get(&peer).map(|remote| {
                let &RemoteConnection { health, min_rtt_us, undelivered_bytes, delivery_rate_bytes_per_s, .. } = remote;
                LinkView { health, min_rtt_us, ..LinkView::limited(delivery_rate_bytes_per_s, undelivered_bytes) }
            }),
            (None, Origin::Cookie(_)) => None,
        }
    }

    /// The socket that carries the stream.
    fn hop(&self, link: &Link) -> LinkView {
        let Some(hint) = self.hint(link) else { return self.local_view(link) };
        let hinted = LinkView {
            health: hint.health,
            min_rtt_us: hint.min_rtt_us,
            delivery_rate: hint.token_rate.map(|_| hint.delivery_rate_bytes_per_s as f64),
            beyond: None,
        };
        // A hint server in another network namespace sees round trips but no queues: what waits here tells on it.
        if hinted.delivery_rate.is_none() && link.queue.get().undelivered_bytes > BUSY_BYTES {
            let local = self.local_view(link);
            return LinkView { health: hinted.health.min(local.health), delivery_rate: local.delivery_rate, ..hinted };
        }
        hinted
    }

    fn hint(&self, link: &Link) -> Option<&tokenflow_hint_api::Connection> {
        self.snapshot.as_ref()?.connections.get(&link.meter.connection().cookie)
    }

    fn local_view(&self, link: &Link) -> LinkView {
        let local = link.meter.connection().local_health(self.now);
        LinkView { health: local.health, min_rtt_us: local.min_rtt_us, delivery_rate: local.delivery_rate, beyond: None }
    }
}

/// One link as its sources tell it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct LinkView {
    health: f64,
    min_rtt_us: u32,
    /// Bytes/s; known only while the network is the limit.
    delivery_rate: Option<f64>,
    /// What waits where this host's socket does not see it; told only while the network is the limit there, since a gateway that is merely
    /// busy stops nobody.
    beyond: Option<Reading>,
}

impl LinkView {
    /// A gateway's connection, of whose delivery this is known; its health and its round trip are for the caller to say.
    fn limited(rate_bytes_per_s: Option<u64>, undelivered_bytes: u64) -> Self {
        let delivery_rate = rate_bytes_per_s.map(|rate| rate as f64);
        let beyond = delivery_rate.map(|rate| Reading { undelivered_bytes, rate });
        Self { health: 1.0, min_rtt_us: 0, delivery_rate, beyond }
    }

    /// Two links in a row.
    fn and(self, next: Self) -> Self {
        Self {
            health: self.health.min(next.health),
            min_rtt_us: self.min_rtt_us.saturating_add(next.min_rtt_us),
            delivery_rate: match (self.delivery_rate, next.delivery_rate) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            },
            beyond: self.beyond.or(next.beyond),
        }
    }
}

impl Link {
    /// Undelivered bytes: looked up when it may matter, else bounded from above by what was produced since.
    fn undelivered_bytes(&self, now: Duration) -> u64 {
        let last = self.queue.get();
        let produced_bytes = self.meter.produced_bytes();
        let since = produced_bytes.saturating_sub(last.produced_bytes);
        let bound = last.undelivered_bytes + since;
        if last.undelivered_bytes <= BUSY_BYTES && since < LOOK_BYTES && now < last.at + LOOK_INTERVAL {
            return bound;
        }
        let undelivered_bytes = self.meter.undelivered_bytes();
        self.queue.set(QueueLook { at: now, undelivered_bytes, produced_bytes });
        undelivered_bytes
    }

    /// Bytes that wait at a gateway, when `undelivered_bytes` have not got that far. They alone never reach the bound on what we hold in memory.
    fn beyond_bytes(&self, now: Duration, reading: Option<Reading>, undelivered_bytes: u64) -> u64 {
        let mut beyond = self.beyond.get();
        let bytes = beyond.bytes(now, reading, self.meter.produced_bytes().saturating_sub(undelivered_bytes));
        self.beyond.set(beyond);
        bytes.min((MAX_UNDELIVERED_BYTES - 1).saturating_sub(undelivered_bytes))
    }

    /// Never less than what is undelivered, without asking the kernel.
    fn undelivered_bound(&self) -> u64 {
        let last = self.queue.get();
        last.undelivered_bytes + self.meter.produced_bytes().saturating_sub(last.produced_bytes)
    }
}

impl Network for Links {
    fn health_factor(&self) -> f64 {
        // A hint server that watches other ports knows nothing of ours.
        let concerns_us = self.streams.is_empty() || self.streams.values().any(|link| self.hint(link).is_some());
        if let Some(state) = self.snapshot.as_ref().filter(|_| concerns_us) {
            return state.hint.health_factor;
        }
        aggregate(self.streams.values().map(|link| {
            let local = link.meter.connection().local_health(self.now);
            (local.health, local.activity_bytes)
        }))
    }

    fn stream(&self, id: SequenceId) -> Option<StreamSignal> {
        let link = self.streams.get(&id)?;
        let view = self.view(link);
        let undelivered_bytes = link.undelivered_bytes(self.now);
        let beyond_bytes =
            if link.meter.client().origin.is_some() { link.beyond_bytes(self.now, view.beyond, undelivered_bytes) } else { 0 };
        let note = LinkNote { delivery_rate: view.delivery_rate, min_rtt: Duration::from_micros(view.min_rtt_us.into()), beyond_bytes };
        link.meter.connection().note_link(note);
        Some(StreamSignal {
            health: view.health,
            undelivered_bytes: undelivered_bytes.saturating_add(beyond_bytes),
            delivery_rate_bytes_per_s: view.delivery_rate,
            min_rtt_us: (view.min_rtt_us > 0).then_some(view.min_rtt_us),
            chunk_bytes: link.meter.token_chunk_bytes() as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use tokenflow_hint_api::HintUrl;

    use super::{super::ClientWord, *};
    use crate::health::TrackedStream;

    #[tokio::test]
    async fn what_waited_at_a_gateway_is_forgotten_with_the_stream() {
        let (_client, stream) = TrackedStream::on_loopback().await;
        let connection = stream.connection();
        let mut links = Links::new(Subscriber::spawn(HintUrl::None));
        links.open(SequenceId(1), Arc::new(StreamMeter::new(connection.clone(), ClientWord::default())));
        let note = LinkNote { delivery_rate: Some(1_000.0), min_rtt: Duration::from_millis(20), beyond_bytes: 9_000 };
        connection.note_link(note);
        links.close(SequenceId(1));
        assert_eq!(connection.link(), LinkNote { beyond_bytes: 0, ..note }, "nobody would tell that it drained");
    }

    #[test]
    fn a_gateway_that_is_not_the_limit_holds_nothing_back() {
        assert_eq!(LinkView::limited(None, 1 << 20).beyond, None);
        let narrow = LinkView::limited(Some(4_000), 9_000);
        assert_eq!(narrow.beyond, Some(Reading { undelivered_bytes: 9_000, rate: 4_000.0 }));
        let hop = LinkView { health: 0.9, min_rtt_us: 100, delivery_rate: Some(1_000.0), beyond: None };
        assert_eq!(hop.and(narrow), LinkView { health: 0.9, min_rtt_us: 100, delivery_rate: Some(1_000.0), beyond: narrow.beyond });
    }
}
