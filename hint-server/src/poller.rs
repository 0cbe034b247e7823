//! Looks in time: often while anything is active, rarely while not, at once when the kernel says that something happened.
//! Looking never takes more than a fifth of the time, however many connections there are.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::Notify, time::sleep};

use crate::{probe::Look, probe::Probe, publish::Feed};

const ACTIVE_INTERVAL: Duration = Duration::from_millis(50);
const IDLE_INTERVAL: Duration = Duration::from_millis(250);
/// An event brings the next look forward to this long after the last.
const LEAST_INTERVAL: Duration = Duration::from_millis(20);
/// Subscribers hear of changes at most this often.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(50);

/// Looks and publishes until dropped; `wake` brings the next look forward. Needs a multi-threaded runtime, since looks block.
pub async fn run(mut probe: Box<dyn Probe>, feed: Arc<Feed>, wake: Arc<Notify>) {
    let mut looks: Vec<Look> = Vec::new();
    let mut published = None::<Duration>;
    let mut failing = false;
    loop {
        let at = feed.now();
        let started = Instant::now();
        looks.clear();
        let result = tokio::task::block_in_place(|| probe.looks(at, &mut looks));
        let cost = started.elapsed();
        feed.metrics.looks.add(1);
        feed.metrics.look_us.add(cost.as_micros() as u64);
        feed.metrics.dropped_events.set(probe.dropped_events());

        let active = match &result {
            Ok(()) => feed.observe(at, probe.source(), &looks),
            Err(error) => {
                feed.metrics.look_errors.add(1);
                if !failing {
                    tracing::error!("cannot measure: {error}; connections count as healthy until it works again");
                }
                feed.expire();
                true
            }
        };
        if failing && result.is_ok() {
            tracing::info!("measuring again");
        }
        failing = result.is_err();

        if published.is_none_or(|published| at.saturating_sub(published) >= PUBLISH_INTERVAL - Duration::from_millis(1)) {
            feed.publish_change();
            published = Some(at);
        }

        let interval = if active { ACTIVE_INTERVAL } else { IDLE_INTERVAL };
        tokio::select! {
            () = sleep(interval.max(cost * 4)) => {}
            () = async { wake.notified().await; sleep(LEAST_INTERVAL.max(cost * 4)).await } => {}
        }
    }
}
