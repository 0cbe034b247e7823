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
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use tokenflow_hint_api::Source;
    use tokenflow_score::Measurement;

    use super::*;
    use crate::{
        probe::ProbeCounters,
        publish::{App, metrics_page},
        tracker::Tracker,
    };

    /// Sees one congested connection, unless it is broken.
    #[derive(Default)]
    struct Scripted {
        broken: Arc<AtomicBool>,
        counters: ProbeCounters,
    }

    impl Probe for Scripted {
        fn source(&self) -> Source {
            Source::SockDiag
        }

        fn looks(&mut self, at: Duration, looks: &mut Vec<Look>) -> Result<(), ProbeError> {
            if self.broken.load(Relaxed) {
                self.counters.netlink_overruns += 1;
                return Err(ProbeError::SockDiag { call: "recv", error: io::Error::from_raw_os_error(libc::ENOBUFS) });
            }
            let identity = Identity { cookie: 7, local: "192.0.2.1:8000".parse().unwrap(), peer: "192.0.2.2:40000".parse().unwrap() };
            let (bytes_acked, undelivered_bytes) = (at.as_millis() as u64, 3000);
            let look = Measurement { at, srtt_us: 800_000, min_rtt_us: 60, bytes_acked, undelivered_bytes, ..Measurement::default() };
            looks.push(Look { identity, measurement: look, source: Source::SockDiag });
            Ok(())
        }

        fn looks_at(&mut self, at: Duration, _: &[Identity], looks: &mut Vec<Look>) -> Result<(), ProbeError> {
            self.looks(at, looks)
        }

        fn counters(&self) -> ProbeCounters {
            self.counters
        }
    }

    async fn eventually(what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !holds() {
            assert!(Instant::now() < deadline, "not within 30 s: {what}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_probe_that_fails_is_counted_its_connections_expire_and_it_is_tried_again() {
        let feed = Arc::new(Feed::new(Tracker::new(Source::None, 220.0)));
        let probe = Scripted::default();
        let broken = Arc::clone(&probe.broken);
        let ended = spawn(Handle::current(), Box::new(probe), Arc::clone(&feed), Arc::default()).unwrap();
        eventually("a sick connection", || feed.hint().health_factor < 0.5).await;

        broken.store(true, Relaxed);
        eventually("its end", || feed.tracker().is_empty() && feed.hint().health_factor == 1.0).await;
        assert!(feed.metrics.look_errors.get() > 1);
        let page = metrics_page(&App::new(Arc::clone(&feed)));
        let overruns = page.lines().find_map(|line| line.strip_prefix("tokenflow_hint_netlink_failures_total{reason=\"overrun\"} "));
        assert!(overruns.unwrap().parse::<f64>().unwrap() > 1.0, "{page}");

        broken.store(false, Relaxed);
        eventually("its return", || feed.hint().health_factor < 0.5).await;
        feed.stop();
        assert!(ended.await.is_err(), "its thread ends with the feed");
    }

    #[test]
    fn a_change_waits_for_its_turn_and_no_longer() {
        let ms = Duration::from_millis;
        assert_eq!(until_publication(None, ms(0)), None);
        assert_eq!(until_publication(Some(ms(100)), ms(120)), Some(ms(30)));
        assert_eq!(until_publication(Some(ms(100)), ms(149)), None);
        assert_eq!(until_publication(Some(ms(100)), ms(500)), None);
    }
}
