//! Follows a hint server and keeps its latest word where any thread can read it without waiting.
//! Fails open: a server that is dead, slow or talks nonsense means that readers see nothing, never that they wait or see old data.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use tokio::task::JoinHandle;

use crate::{
    HintState, HintUrl,
    backoff::Backoff,
    sse::SseItem,
    stream::{EventStream, StreamError},
};

/// Servers send at least a keep-alive every half second; data older than this no longer counts.
pub const STALE_AFTER: Duration = Duration::from_secs(2);

/// How things stand with the hint server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The URL is `none`.
    Disabled,
    Connected,
    /// Connected, and nothing heard for [`STALE_AFTER`].
    Stale,
    /// Not connected; the next attempt comes by itself.
    Unreachable,
}

/// A live copy of a hint server's state. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscriber {
    shared: Arc<Shared>,
    task: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: ArcSwapOption<HintState>,
    connected: AtomicBool,
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Subscriber {
    /// Starts to follow the server at `url` on the current tokio runtime (for [`HintUrl::None`] it only ever says [`Status::Disabled`]).
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn(url: HintUrl) -> Self {
        let shared = Arc::new(Shared::default());
        let task = (url != HintUrl::None).then(|| tokio::spawn(follow(url, Arc::clone(&shared))));
        Self { shared, task }
    }

    /// The server's latest word; `None` where there is none or it is stale. Does not wait.
    pub fn snapshot(&self) -> Option<Arc<HintState>> {
        self.snapshot_at(Instant::now())
    }

    fn snapshot_at(&self, now: Instant) -> Option<Arc<HintState>> {
        self.shared.state.load_full().filter(|state| is_fresh(state, now))
    }

    /// When the server last said anything, however long ago. Does not wait.
    pub fn last_heard(&self) -> Option<Instant> {
        self.shared.state.load().as_ref().map(|state| state.received_at)
    }

    /// Does not wait.
    pub fn status(&self) -> Status {
        self.status_at(Instant::now())
    }

    fn status_at(&self, now: Instant) -> Status {
        match (&self.task, self.shared.connected.load(Relaxed)) {
            (None, _) => Status::Disabled,
            (Some(_), false) => Status::Unreachable,
            (Some(_), true) if self.shared.state.load().as_ref().is_some_and(|state| is_fresh(state, now)) => Status::Connected,
            (Some(_), true) => Status::Stale,
        }
    }
}

fn is_fresh(state: &HintState, now: Instant) -> bool {
    now.saturating_duration_since(state.received_at) <= STALE_AFTER
}

async fn follow(url: HintUrl, shared: Arc<Shared>) {
    let mut backoff = Backoff::default();
    let mut said_unreachable = false;
    loop {
        let Err(error) = follow_once(&url, &shared, &mut backoff).await;
        let was_connected = shared.connected.swap(false, Relaxed);
        if was_connected || !said_unreachable {
            tracing::warn!("no hints from {url} ({error}); carrying on without");
            said_unreachable = true;
        }
        tokio::time::sleep(backoff.next_wait()).await;
    }
}

async fn follow_once(url: &HintUrl, shared: &Shared, backoff: &mut Backoff) -> Result<std::convert::Infallible, StreamError> {
    let mut stream = EventStream::open(url).await?;
    let mut current: Option<HintState> = None;
    loop {
        for item in stream.next().await? {
            let now = Instant::now();
            let next = match (item, &current) {
                (SseItem::Event { event, data }, _) if event == "snapshot" => {
                    Some(HintState::from_snapshot(parse("snapshot", &data)?, now))
                }
                (SseItem::Event { event, data }, Some(state)) if event == "change" => Some(state.changed(parse("change", &data)?, now)),
                (SseItem::Event { event, .. }, None) if event == "change" => return Err(StreamError::ChangeFirst),
                // Events of a newer server prove that it is alive, as comments do.
                (_, Some(state)) => Some(state.confirmed(now)),
                (_, None) => None,
            };
            let Some(next) = next else { continue };
            shared.state.store(Some(Arc::new(next.clone())));
            if current.replace(next).is_none() {
                backoff.reset();
                shared.connected.store(true, Relaxed);
                tracing::info!("hints from {url}");
            }
        }
    }
}

fn parse(event: &'static str, data: &str) -> Result<crate::HintEvent, StreamError> {
    serde_json::from_str(data).map_err(|error| StreamError::Event { event, error })
}

#[cfg(test)]
#[path = "subscriber_tests.rs"]
mod tests;
