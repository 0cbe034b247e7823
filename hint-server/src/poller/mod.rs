//! Looks in time: often while anything is active, rarely while not, at once when the kernel says that something happened.
//! [`pace`] keeps what that costs in bounds, however many connections there are.

mod pace;

use std::{
    convert::Infallible,
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot},
    time::sleep,
};

use crate::{
    probe::{Identity, Look, Probe, ProbeError, clock},
    publish::Feed,
};
use pace::{Pace, Round};

const ACTIVE_INTERVAL: Duration = Duration::from_millis(50);
const IDLE_INTERVAL: Duration = Duration::from_millis(250);
/// An event brings the next look forward to this long after the last.
const LEAST_INTERVAL: Duration = Duration::from_millis(20);
/// Subscribers hear of changes at most this often.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(50);

/// Measures from a thread of its own, since looks block: readers' answers never wait behind one. Ends once the feed stops; a panic in it comes
/// out of the returned channel as its closing.
///
/// # Errors
/// Where the system gives no thread.
pub fn spawn(runtime: Handle, probe: Box<dyn Probe>, feed: Arc<Feed>, wake: Arc<Notify>) -> io::Result<oneshot::Receiver<Infallible>> {
    let (alive, ended) = oneshot::channel();
    thread::Builder::new().name("measure".to_owned()).spawn(move || {
        let _alive = alive;
        runtime.block_on(run(probe, feed, wake));
    })?;
    Ok(ended)
}

/// Looks and publishes until the feed stops; `wake` brings the next look forward.
async fn run(mut probe: Box<dyn Probe>, feed: Arc<Feed>, wake: Arc<Notify>) {
    let (mut pace, mut looks) = (Pace::default(), Vec::new());
    let mut published = None::<Duration>;
    let mut failing = false;
    loop {
        let at = feed.now();
        let (started, processor) = (Instant::now(), clock::thread_cpu());
        let result = look(probe.as_mut(), &feed, at, &mut pace, &mut looks);
        let active = match &result {
            Ok(active) => *active,
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

        let suppressed = until_publication(published, at);
        if suppressed.is_none() {
            feed.publish_change();
            published = Some(at);
        }
        feed.metrics.looks.add(1);
        feed.metrics.look_us.add(started.elapsed().as_micros() as u64);
        // Waiting for a busy machine's processor is no reason to look less often.
        let cost = clock::thread_cpu().saturating_sub(processor);
        feed.metrics.set_probe(&probe.counters());

        let interval = if active { ACTIVE_INTERVAL } else { IDLE_INTERVAL };
        // What this look found may be news: the next one, with its publication, comes as soon as it may be told.
        let interval = suppressed.map_or(interval, |left| left.min(interval));
        tokio::select! {
            // First, since no timer may be asked once the runtime is going down.
            biased;
            () = feed.stopped() => return,
            () = sleep(interval.max(cost * 4)) => {}
            () = async { wake.notified().await; sleep(LEAST_INTERVAL.max(cost * 4)).await } => {}
        }
    }
}

/// One round; returns whether any connection is active.
fn look(probe: &mut dyn Probe, feed: &Feed, at: Duration, pace: &mut Pace, looks: &mut Vec<Look>) -> Result<bool, ProbeError> {
    let started = clock::thread_cpu();
    looks.clear();
    let asked: Option<Vec<Identity>> = match pace.next(at) {
        Round::Whole => None,
        Round::Slice(most) => Some(feed.tracker().hot_slice(most)),
    };
    match &asked {
        None => probe.looks(at, looks)?,
        Some(asked) => probe.looks_at(at, asked, looks)?,
    }
    feed.metrics.connection_looks.add(looks.len() as u64);
    let active = feed.observe(at, probe.source(), looks, asked.as_deref());
    let cost = clock::thread_cpu().saturating_sub(started);
    match &asked {
        None => pace.whole(at, cost),
        Some(asked) => pace.slice(asked.len(), cost),
    }
    Ok(active)
}

/// How long the last publication keeps a change found `at` from being told; `None` where it may be told now.
fn until_publication(published: Option<Duration>, at: Duration) -> Option<Duration> {
    // Timers are whole milliseconds, so a look may come a little early.
    const EARLY: Duration = Duration::from_millis(1);
    let left = (published? + PUBLISH_INTERVAL).saturating_sub(at);
    (left > EARLY).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_waits_for_its_turn_and_no_longer() {
        let ms = Duration::from_millis;
        assert_eq!(until_publication(None, ms(0)), None);
        assert_eq!(until_publication(Some(ms(100)), ms(120)), Some(ms(30)));
        assert_eq!(until_publication(Some(ms(100)), ms(149)), None);
        assert_eq!(until_publication(Some(ms(100)), ms(500)), None);
    }
}
