//! When a stream's next event waits for its link, so that the tokens that come meanwhile share it (Nagle's idea, RFC 896, one layer up).
//!
//! An event weighs about two hundred bytes before it says anything: on a link that carries less than the stream makes, tokens that share
//! one multiply the text that the link carries. Where the network is not the limit and the socket takes what it is given, nothing waits.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::StreamMeter;

/// This much of the link's time may be on the way when the next event goes out, so that the link never idles; more than the score takes for
/// a standing queue (1.5 times its slack of 40 ms), else a link that is kept this busy would read as free.
const KEPT_BUSY: Duration = Duration::from_millis(90);
/// A link that was seen to be the limit counts as such for this long: with less to carry it may look free for a moment.
const REMEMBERED: Duration = Duration::from_secs(2);
/// Bounds of the time between two looks at the socket.
const SOONEST_LOOK: Duration = Duration::from_millis(2);
const LATEST_LOOK: Duration = Duration::from_millis(50);
/// No event waits for longer, whatever the socket says.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Tokens share an event up to this much of the link's time: a longer one would be acknowledged too late to clock the next.
const SHARED_TIME: Duration = Duration::from_millis(50);
/// Most bytes that tokens share an event up to.
pub(crate) const MOST_SHARED_BYTES: u64 = 16 << 10;

/// Up to how many bytes tokens that wait share an event: one token's own chunk of `chunk_bytes` at least. `rate` in bytes/s, where known.
pub(super) fn shared_bytes(rate: Option<f64>, chunk_bytes: u64) -> u64 {
    let carried = rate.map_or(MOST_SHARED_BYTES, |rate| (rate * SHARED_TIME.as_secs_f64()) as u64);
    carried.max(chunk_bytes).clamp(1, MOST_SHARED_BYTES)
}

/// A link at the last look of the engine's loop.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct LinkNote {
    /// Bytes/s; known only while the network is the limit.
    pub(super) delivery_rate: Option<f64>,
    pub(super) min_rtt: Duration,
    /// Bytes that wait beyond the socket, at a gateway.
    pub(super) beyond_bytes: u64,
}

/// What a connection holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Queue {
    /// Bytes that the client has not acknowledged, those refused among them.
    pub(super) undelivered_bytes: u64,
    /// Bytes that the socket would not take.
    pub(super) refused_bytes: u64,
}

/// A link when it was last seen to be the limit. What waits on it is not remembered: that is another amount by now.
#[derive(Clone, Copy, Debug)]
struct Limit {
    /// Bytes/s.
    rate: f64,
    min_rtt: Duration,
    seen_at: Duration,
}

/// Decides, with time passed in.
#[derive(Debug, Default)]
struct Hold {
    limit: Option<Limit>,
    waits_since: Option<Duration>,
    is_behind: bool,
}

impl Hold {
    /// How long to wait before the next look; `None` where the next event may go. An event of this stream weighs `event_bytes`.
    fn wait(&mut self, now: Duration, link: LinkNote, queue: Queue, event_bytes: u64) -> Option<Duration> {
        if let Some(rate) = link.delivery_rate {
            self.limit = Some(Limit { rate, min_rtt: link.min_rtt, seen_at: now });
        }
        self.limit = self.limit.filter(|limit| now < limit.seen_at + REMEMBERED);
        // What was held back while the socket was full shares events when it no longer is.
        self.is_behind = self.limit.is_some() || queue.refused_bytes > 0 || self.waits_since.is_some();
        let wait = self.look_again_after(link.beyond_bytes, queue, event_bytes);
        let waits_since = *self.waits_since.get_or_insert(now);
        if wait.is_none() || now >= waits_since + LONGEST_WAIT {
            self.waits_since = None;
            return None;
        }
        wait
    }

    fn look_again_after(&self, beyond_bytes: u64, queue: Queue, event_bytes: u64) -> Option<Duration> {
        let Some(Limit { rate, min_rtt, .. }) = self.limit else { return (queue.refused_bytes > 0).then_some(LATEST_LOOK / 5) };
        // An event is acknowledged as a whole: while one is on the way the next may follow.
        let kept_busy = (rate * (min_rtt + KEPT_BUSY).as_secs_f64()).max(event_bytes as f64);
        let excess = queue.undelivered_bytes.saturating_add(beyond_bytes) as f64 - kept_busy;
        if excess <= 0.0 && queue.refused_bytes == 0 {
            return None;
        }
        let drained_after = Duration::try_from_secs_f64(excess.max(0.0) / rate).unwrap_or(LATEST_LOOK);
        Some(drained_after.clamp(SOONEST_LOOK, LATEST_LOOK))
    }

    /// Up to how many bytes what waits shares an event; 0 where each token has its own.
    fn shared_bytes(&self, chunk_bytes: u64) -> u64 {
        if self.is_behind { shared_bytes(self.limit.map(|limit| limit.rate), chunk_bytes) } else { 0 }
    }
}

/// Holds one response's events back while its link is behind.
pub struct Coalescer {
    meter: Arc<StreamMeter>,
    hold: Hold,
    began: Instant,
}

impl Coalescer {
    /// For a response that `meter` counts; of several choices, any one's.
    pub fn new(meter: Arc<StreamMeter>) -> Self {
        // What the engine's loop noted is of the response before, maybe to another client of the same proxy.
        meter.connection().note_link(LinkNote::default());
        meter.connection().share_events(0);
        Self { meter, hold: Hold::default(), began: Instant::now() }
    }

    /// Waits until the link has use for another event.
    pub async fn room(&mut self) {
        let connection = self.meter.connection().clone();
        loop {
            let link = connection.link();
            // A healthy link costs no system call.
            let has_trouble = link.delivery_rate.is_some() || self.hold.limit.is_some() || connection.refused_bytes() > 0;
            let queue = if has_trouble { connection.queue() } else { Queue::default() };
            let wait = self.hold.wait(self.began.elapsed(), link, queue, self.meter.chunk_bytes());
            connection.share_events(self.shared_bytes());
            match wait {
                Some(wait) => sleep(wait).await,
                None => return,
            }
        }
    }

    /// Up to how many bytes what waits shares a write; 0 where each token has its own.
    pub fn shared_bytes(&self) -> u64 {
        self.hold.shared_bytes(self.meter.token_chunk_bytes())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;
    use crate::health::{ClientWord, TrackedStream};

    const EVENT: u64 = 220;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn narrow(rate: f64) -> LinkNote {
        LinkNote { delivery_rate: Some(rate), ..LinkNote::default() }
    }

    fn queued(undelivered_bytes: u64) -> Queue {
        Queue { undelivered_bytes, refused_bytes: 0 }
    }

    #[test]
    fn nothing_waits_on_a_link_that_is_not_the_limit() {
        let mut hold = Hold::default();
        assert_eq!(hold.wait(ms(0), LinkNote::default(), queued(60_000), EVENT), None);
        assert!(!hold.is_behind);
    }

    #[test]
    fn a_narrow_link_gets_the_next_event_when_one_is_left_on_the_way() {
        let mut hold = Hold::default();
        assert_eq!(hold.wait(ms(0), narrow(11_000.0), queued(1_210), EVENT), Some(ms(20)), "20 ms for 220 bytes too many");
        assert_eq!(hold.wait(ms(20), narrow(11_000.0), queued(990), EVENT), None);
        assert!(hold.is_behind);
        assert_eq!(hold.wait(ms(40), narrow(1_000.0), queued(221), EVENT), Some(SOONEST_LOOK));
        assert_eq!(hold.wait(ms(60), narrow(1_000.0), queued(220), EVENT), None);
    }

    #[test]
    fn a_link_stays_narrow_for_a_while_after_it_was_seen_to_be() {
        let mut hold = Hold::default();
        hold.wait(ms(0), narrow(1_000.0), queued(0), EVENT);
        assert_eq!(hold.wait(ms(1_999), LinkNote::default(), queued(500), EVENT), Some(LATEST_LOOK));
        assert_eq!(hold.wait(ms(2_000), LinkNote::default(), queued(500), EVENT), None);
        assert_eq!(hold.wait(ms(2_001), LinkNote::default(), queued(500), EVENT), None);
        assert!(!hold.is_behind);
    }

    #[test]
    fn what_no_longer_waits_at_a_gateway_holds_nothing_back() {
        let mut hold = Hold::default();
        let beyond = |beyond_bytes| LinkNote { beyond_bytes, ..narrow(1_000.0) };
        assert_eq!(hold.wait(ms(0), beyond(3_000), queued(0), EVENT), Some(LATEST_LOOK));
        assert_eq!(hold.wait(ms(50), beyond(0), queued(0), EVENT), None);
        assert_eq!(hold.wait(ms(60), LinkNote::default(), queued(0), EVENT), None, "the rate is remembered, the queue is not");
        assert!(hold.is_behind);
    }

    #[tokio::test]
    async fn a_response_knows_nothing_of_the_one_before_on_its_connection() {
        let (_client, stream) = TrackedStream::on_loopback().await;
        let connection = stream.connection();
        let coalescer = || Coalescer::new(Arc::new(StreamMeter::new(connection.clone(), ClientWord::default())));
        let mut first = coalescer();
        connection.note_link(LinkNote { beyond_bytes: 50_000, ..narrow(1_000.0) });
        assert!(first.room().now_or_never().is_none() && connection.is_behind());
        let mut second = coalescer();
        assert!(second.room().now_or_never().is_some() && !connection.is_behind());
    }

    #[test]
    fn tokens_share_an_event_as_long_as_the_link_takes_it_in_a_moment() {
        assert_eq!(shared_bytes(Some(40_000.0), EVENT), 2_000);
        assert_eq!(shared_bytes(Some(1_000.0), EVENT), EVENT);
        assert_eq!(shared_bytes(None, EVENT), MOST_SHARED_BYTES);
        assert_eq!(shared_bytes(Some(f64::INFINITY), u64::MAX), MOST_SHARED_BYTES);
        assert_eq!(shared_bytes(Some(f64::NAN), 0), 1);
        assert_eq!(Hold::default().shared_bytes(EVENT), 0, "on a healthy link each token has its own");
    }

    #[test]
    fn what_the_socket_refuses_holds_back_what_follows() {
        let mut hold = Hold::default();
        let full = Queue { undelivered_bytes: 9_000, refused_bytes: 1 };
        assert!(hold.wait(ms(0), LinkNote::default(), full, EVENT).is_some() && hold.is_behind);
        assert_eq!(hold.wait(ms(10), LinkNote::default(), queued(9_000), EVENT), None);
        assert!(hold.is_behind, "what waited goes together");
        assert_eq!(hold.wait(ms(20), LinkNote::default(), queued(9_000), EVENT), None);
        assert!(!hold.is_behind);
    }

    proptest! {
        #[test]
        fn no_event_waits_for_ever(rate in prop_oneof![Just(0.0), Just(f64::INFINITY), 0.0..1e9f64], undelivered in any::<u64>(), refused in any::<u64>()) {
            let (mut hold, mut now) = (Hold::default(), ms(0));
            let queue = Queue { undelivered_bytes: undelivered, refused_bytes: refused };
            while let Some(wait) = hold.wait(now, narrow(rate), queue, EVENT) {
                prop_assert!((SOONEST_LOOK..=LATEST_LOOK).contains(&wait));
                now += wait;
            }
            prop_assert!(now <= LONGEST_WAIT + LATEST_LOOK);
        }
    }
}
