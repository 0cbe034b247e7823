//! Where looks come in and readers find them: the tracker behind a lock that is only ever held for memory work, and a channel of changes.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokenflow_hint_api::{HintEvent, Source};
use tokio::sync::{broadcast, watch};

use super::Metrics;
use crate::{probe::Look, tracker::Tracker};

/// Changes that a slow subscriber may be behind; one that is further behind gets a new snapshot.
const CHANGES_KEPT: usize = 64;

pub struct Feed {
    tracker: Mutex<Tracker>,
    /// Changes as JSON: made once for all subscribers.
    changes: broadcast::Sender<Arc<str>>,
    /// True once the server is stopping: streams end, so that it can.
    stopping: watch::Sender<bool>,
    pub metrics: Metrics,
    started: Instant,
}

impl Feed {
    pub fn new(tracker: Tracker) -> Self {
        Self {
            tracker: Mutex::new(tracker),
            changes: broadcast::channel(CHANGES_KEPT).0,
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

    /// A round of looks; returns whether any connection is active.
    pub fn observe(&self, at: Duration, source: Source, looks: &[Look]) -> bool {
        let mut tracker = self.tracker();
        tracker.observe(at, source, looks);
        tracker.is_active(at)
    }

    /// The probe failed: what it once saw does not count for ever.
    pub fn expire(&self) {
        self.tracker().expire(self.now());
    }

    /// Tells subscribers what changed since the last call.
    pub fn publish_change(&self) {
        let mut tracker = self.tracker();
        if let Some(change) = tracker.take_change(self.now()) {
            self.metrics.changes.add(1);
            // Sent under the lock, so that no subscriber's snapshot falls between a change and its sending. No receiver is no error.
            let _ = self.changes.send(json(&change).into());
        }
    }

    /// Everything as it is now, and all changes after it.
    pub fn subscribe(self: &Arc<Self>) -> Subscription {
        self.metrics.subscribers.add(1);
        let (snapshot, changes) = self.snapshot_and_changes();
        Subscription { feed: Arc::clone(self), snapshot: Some(snapshot), changes, stopping: self.stopping.subscribe() }
    }

    fn snapshot_and_changes(&self) -> (String, broadcast::Receiver<Arc<str>>) {
        let tracker = self.tracker();
        (json(&tracker.snapshot(self.now())), self.changes.subscribe())
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

/// What a subscriber is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    Snapshot(String),
    Change(Arc<str>),
}

pub struct Subscription {
    feed: Arc<Feed>,
    snapshot: Option<String>,
    changes: broadcast::Receiver<Arc<str>>,
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
            Some(Update::Snapshot(text)) => (true, serde_json::from_str(&text).unwrap()),
            Some(Update::Change(text)) => (false, serde_json::from_str(&text).unwrap()),
            None => panic!("stopped"),
        }
    }

    #[tokio::test]
    async fn a_subscriber_gets_a_snapshot_then_changes() {
        let feed = Arc::new(Feed::new(Tracker::new(Source::SockDiag, 220.0)));
        feed.observe(feed.now(), Source::SockDiag, &[look(feed.now(), 0)]);
        feed.publish_change();
        let mut subscription = feed.subscribe();
        let (is_snapshot, event) = parse(subscription.next().await);
        assert!(is_snapshot && event.changed.len() == 1);
        feed.observe(feed.now(), Source::SockDiag, &[look(feed.now(), 1)]);
        feed.publish_change();
        let (is_snapshot, event) = parse(subscription.next().await);
        assert!(!is_snapshot && event.changed[0].retransmits == 1);
        feed.stop();
        assert_eq!(subscription.next().await, None);
    }

    #[tokio::test]
    async fn one_that_falls_behind_gets_a_new_snapshot() {
        let feed = Arc::new(Feed::new(Tracker::new(Source::SockDiag, 220.0)));
        let mut subscription = feed.subscribe();
        parse(subscription.next().await);
        for retransmits in 0..100 {
            feed.observe(feed.now(), Source::SockDiag, &[look(feed.now(), retransmits)]);
            feed.publish_change();
        }
        let (is_snapshot, event) = parse(subscription.next().await);
        assert!(is_snapshot && event.changed[0].retransmits == 99);
        assert_eq!(feed.metrics.subscribers_behind.get(), 1);
        drop(subscription);
        assert_eq!(feed.metrics.subscribers.get(), 0);
    }
}
