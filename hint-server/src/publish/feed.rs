//! Where looks come in and readers find them: the tracker behind a lock that is only ever held for memory work, and a channel of changes.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokenflow_hint_api::{Hint, HintEvent, RemoteConnection, Source};
use tokio::sync::{broadcast, watch};

use super::{
    Metrics, Reader,
    history::{History, Moment},
};
use crate::{
    engine::EngineState,
    probe::{Identity, Look},
    tracker::Tracker,
};

/// Changes that a slow subscriber may be behind; one that is further behind gets a new snapshot.
const CHANGES_KEPT: usize = 32;
/// Looks taken in under one lock: readers of single connections wait for no more.
const OBSERVED_AT_ONCE: usize = 256;

pub struct Feed {
    tracker: Mutex<Tracker>,
    /// The aggregate as of the latest round, and when that was: readers of it wait for nothing.
    hint: ArcSwap<(Hint, Duration)>,
    changes: broadcast::Sender<Arc<Told>>,
    /// Other hosts' connections in trouble, as subscribers know them; only touched while the tracker is held.
    others: Mutex<HashMap<SocketAddr, RemoteConnection>>,
    history: Mutex<History>,
    /// True once the server is stopping: streams end, so that it can.
    stopping: watch::Sender<bool>,
    pub metrics: Metrics,
    started: Instant,
}

impl Feed {
    pub fn new(tracker: Tracker) -> Self {
        Self {
            hint: ArcSwap::from_pointee((tracker.hint(Duration::ZERO), Duration::ZERO)),
            tracker: Mutex::new(tracker),
            changes: broadcast::channel(CHANGES_KEPT).0,
            others: Mutex::default(),
            history: Mutex::default(),
            stopping: watch::channel(false).0,
            metrics: Metrics::default(),
            started: Instant::now(),
        }
    }

    /// Time since the start: the clock of every measurement.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub fn tracker(&self) -> MutexGuard<'_, Tracker> {
        // The tracker is whole between any two of its methods, so a panic elsewhere leaves nothing broken.
        self.tracker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This is what will measure.
    pub fn begin(&self, source: Source) {
        let mut tracker = self.tracker();
        tracker.observe_some(Duration::ZERO, source, &[]);
        self.keep_hint(&tracker, Duration::ZERO);
    }

    /// The aggregate.
    pub fn hint(&self) -> Hint {
        let (hint, at) = &**self.hint.load();
        let since = self.now().saturating_sub(*at).as_millis() as u64;
        Hint { age_ms: hint.age_ms.saturating_add(since), ..hint.clone() }
    }

    fn keep_hint(&self, tracker: &Tracker, at: Duration) {
        self.hint.store(Arc::new((tracker.hint(at), at)));
    }

    /// A round of looks, of everything where `asked` is `None`; returns whether any connection is active.
    pub fn observe(&self, at: Duration, source: Source, looks: &[Look], asked: Option<&[Identity]>) -> bool {
        for some in looks.chunks(OBSERVED_AT_ONCE) {
            self.tracker().observe_some(at, source, some);
        }
        let mut tracker = self.tracker();
        tracker.observe_some(at, source, &[]);
        match asked {
            None => tracker.end_round(at),
            Some(asked) => tracker.end_partial_round(at, asked),
        }
        self.keep_hint(&tracker, at);
        tracker.is_active(at)
    }

    /// The probe failed: what it once saw does not count for ever.
    pub fn expire(&self) {
        let now = self.now();
        let mut tracker = self.tracker();
        tracker.expire(now);
        self.keep_hint(&tracker, now);
    }

    /// Tells subscribers what changed since the last call.
    pub fn publish_change(&self) {
        let mut tracker = self.tracker();
        let now = self.now();
        if let Some(change) = tracker.take_change(now) {
            self.hint.store(Arc::new((change.hint.clone(), now)));
            self.metrics.changes.add(1);
            // Sent under the lock, so that no subscriber's snapshot falls between a change and its sending. No receiver is no error.
            if self.changes.receiver_count() > 0 {
                let _ = self.changes.send(Arc::new(Told::new(change)));
            }
        }
    }

    /// Everything as it is now, and all changes after it.
    pub fn subscribe(self: &Arc<Self>) -> Subscription {
        self.metrics.subscribers.add(1);
        let (snapshot, changes) = self.snapshot_and_changes();
        Subscription { feed: Arc::clone(self), snapshot: Some(snapshot), changes, stopping: self.stopping.subscribe() }
    }

    fn snapshot_and_changes(&self) -> (Arc<Told>, broadcast::Receiver<Arc<Told>>) {
        let tracker = self.tracker();
        let remote = self.others().values().copied().collect();
        let snapshot = HintEvent { remote, ..tracker.snapshot(self.now()) };
        (Arc::new(Told::new(snapshot)), self.changes.subscribe())
    }

    fn others(&self) -> MutexGuard<'_, HashMap<SocketAddr, RemoteConnection>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells subscribers which of other hosts' connections are in trouble, as far as that changed.
    pub fn tell_others(&self, troubled: HashMap<SocketAddr, RemoteConnection>) {
        // Under the same lock as other changes, so that no subscriber's snapshot falls between.
        let _tracker = self.tracker();
        let mut others = self.others();
        let remote: Vec<_> = troubled.values().filter(|now| others.get(&now.peer) != Some(now)).copied().collect();
        let remote_removed: Vec<_> = others.keys().filter(|peer| !troubled.contains_key(peer)).copied().collect();
        if remote.is_empty() && remote_removed.is_empty() {
            return;
        }
        *others = troubled;
        if self.changes.receiver_count() > 0 {
            let event = HintEvent { hint: self.hint(), changed: Vec::new(), removed: Vec::new(), remote, remote_removed };
            let _ = self.changes.send(Arc::new(Told::new(event)));
        }
    }

    /// Adds a sample to the history where one is due.
    pub fn remember(&self, at: Duration, engine: impl FnOnce() -> Option<EngineState>) {
        let mut history = self.history();
        if !history.is_due(at) {
            return;
        }
        let hint = self.hint();
        let tracker = self.tracker();
        let moment = Moment {
            at,
            health: hint.health_factor,
            delivered_bytes: tracker.delivered_bytes(),
            active: hint.connections,
            network_limited: tracker.network_limited() as u64,
            queued_bytes: hint.metrics.queued_bytes,
        };
        history.add(moment, tracker.bytes_per_token(), engine());
    }

    /// The last ten minutes.
    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends every stream.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Waits for [`Self::stop`].
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stopping = self.stopping.subscribe();
        async move {
            // An error means that the feed is gone, which is as good as stopped.
            let _ = stopping.wait_for(|&stopping| stopping).await;
        }
    }
}

/// An event, whose JSON is made once for all subscribers that may see the same, and only if there are any.
#[derive(Debug)]
pub struct Told {
    event: HintEvent,
    full: OnceLock<String>,
    blind: OnceLock<String>,
}

impl Told {
    fn new(event: HintEvent) -> Self {
        Self { event, full: OnceLock::new(), blind: OnceLock::new() }
    }

    /// As this reader may see it.
    pub fn json(&self, reader: Reader) -> &str {
        match reader {
            Reader::Full => self.full.get_or_init(|| json(&self.event)),
            Reader::Blind => self.blind.get_or_init(|| {
                let changed = self.event.changed.iter().cloned().map(|connection| reader.view(connection)).collect();
                json(&HintEvent { changed, remote: Vec::new(), remote_removed: Vec::new(), ..self.event.clone() })
            }),
        }
    }
}

/// What a subscriber is told.
#[derive(Clone, Debug)]
pub enum Update {
    Snapshot(Arc<Told>),
    Change(Arc<Told>),
}

pub struct Subscription {
    feed: Arc<Feed>,
    snapshot: Option<Arc<Told>>,
    changes: broadcast::Receiver<Arc<Told>>,
    stopping: watch::Receiver<bool>,
}

impl Subscription {
    /// The snapshot first, then changes as they come; `None` when the server stops.
    pub async fn next(&mut self) -> Option<Update> {
        if let Some(snapshot) = self.snapshot.take() {
            return Some(Update::Snapshot(snapshot));
        }
        let change = tokio::select! {
            change = self.changes.recv() => change,
            _ = self.stopping.wait_for(|&stopping| stopping) => return None,
        };
        match change {
            Ok(change) => Some(Update::Change(change)),
            Err(broadcast::error::RecvError::Lagged(_)) => {
                self.feed.metrics.subscribers_behind.add(1);
                let (snapshot, changes) = self.feed.snapshot_and_changes();
                self.changes = changes;
                Some(Update::Snapshot(snapshot))
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.feed.metrics.subscribers.subtract(1);
    }
}

fn json(event: &HintEvent) -> String {
    serde_json::to_string(event).expect("numbers, strings and addresses have a JSON form")
}

#[cfg(test)]
mod tests {
    use tokenflow_score::Measurement;

    use super::*;
    use crate::probe::Identity;

    fn look(at: Duration, retransmits: u64) -> Look {
        Look {
            identity: Identity { cookie: 5, local: "127.0.0.1:8000".parse().unwrap(), peer: "127.0.0.1:9".parse().unwrap() },
            measurement: Measurement { at, retransmits, ..Default::default() },
            source: Source::SockDiag,
        }
    }

    fn parse(update: Option<Update>) -> (bool, HintEvent) {
        match update {
            Some(Update::Snapshot(told)) => (true, serde_json::from_str(told.json(Reader::Full)).unwrap()),
            Some(Update::Change(told)) => (false, serde_json::from_str(told.json(Reader::Full)).unwrap()),
            None => panic!("stopped"),
        }
    }

    #[tokio::test]
    async fn a_subscriber_gets_a_snapshot_then_changes() {
        let feed = Arc::new(Feed::new(Tracker::new(Source::SockDiag, 220.0)));
        feed.observe(feed.now(), Source::SockDiag, &[look(feed.now(), 0)], None);
        feed.publish_change();
        let mut subscription = feed.subscribe();
        let (is_snapshot, event) = parse(subscription.next().await);
        assert!(is_snapshot && event.changed.len() == 1);
        let told = Told::new(event);
        assert!(told.json(Reader::Full).contains("127.0.0.1:8000") && !told.json(Reader::Blind).contains("127.0.0.1"));
        feed.observe(feed.now(), Source::SockDiag, &[look(feed.now(), 1)], None);
        feed.publish_change();
        let (is_snapshot, event) = parse(subscription.next().await);
        assert!(!is_snapshot && event.changed[0].retransmits == 1);
        feed.stop();
        assert!(subscription.next().await.is_none());
    }

    #[tokio::test]
    async fn other_hosts_connections_in_trouble_are_told_until_they_are_well() {
        let feed = Arc::new(Feed::new(Tracker::new(Source::SockDiag, 220.0)));
        let peer = "192.0.2.1:9".parse().unwrap();
        let sick = |health| RemoteConnection { peer, health, min_rtt_us: 0, undelivered_bytes: 7, delivery_rate_bytes_per_s: Some(900) };
        let mut early = feed.subscribe();
        assert!(parse(early.next().await).1.remote.is_empty());
        feed.tell_others(HashMap::from([(peer, sick(0.5))]));
        feed.tell_others(HashMap::from([(peer, sick(0.5))]));
        assert_eq!(parse(early.next().await).1.remote, [sick(0.5)]);
        let mut late = feed.subscribe();
        assert_eq!(parse(late.next().await).1.remote, [sick(0.5)], "a snapshot has them too");
        let told = feed.snapshot_and_changes().0;
        assert!(told.json(Reader::Full).contains("192.0.2.1:9") && !told.json(Reader::Blind).contains("192.0.2.1"));
        feed.tell_others(HashMap::new());
        for mut subscriber in [early, late] {
            assert_eq!(parse(subscriber.next().await).1.remote_removed, [peer], "what was the same was not told again");
        }
        assert!(parse(feed.subscribe().next().await).1.remote.is_empty());
    }

    #[tokio::test]
    async fn one_that_falls_behind_gets_a_new_snapshot() {
        let feed = Arc::new(Feed::new(Tracker::new(Source::SockDiag, 220.0)));
        let mut subscription = feed.subscribe();
        parse(subscription.next().await);
        for retransmits in 0..100 {
            feed.observe(feed.now(), Source::SockDiag, &[look(feed.now(), retransmits)], None);
            feed.publish_change();
        }
        let (is_snapshot, event) = parse(subscription.next().await);
        assert!(is_snapshot && event.changed[0].retransmits == 99);
        assert_eq!(feed.metrics.subscribers_behind.get(), 1);
        drop(subscription);
        assert_eq!(feed.metrics.subscribers.get(), 0);
    }
}
