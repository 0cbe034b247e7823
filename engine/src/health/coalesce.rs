//! When a stream's next event waits for its link, so that the tokens that come meanwhile share it (Nagle's idea, RFC 896, one layer up).
//!
//! An event weighs about two hundred bytes before it says anything: on a link that carries less than the stream makes, tokens that share
//! one multiply the text that the link carries. Where the network is not the limit and the socket takes what it is given, nothing waits.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::StreamMeter;

/// This much of the link's time may be on the way when the next event goes out, so that the link never idles.
const KEPT_BUSY: Duration = Duration::from_millis(50);
/// A link that was seen to be the limit counts as such for this long: with less to carry it may look free for a moment.
const REMEMBERED: Duration = Duration::from_secs(2);
/// Bounds of the time between two looks at the socket.
const SOONEST_LOOK: Duration = Duration::from_millis(2);
const LATEST_LOOK: Duration = Duration::from_millis(50);
/// No event waits for longer, whatever the socket says.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

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

/// Decides, with time passed in.
#[derive(Debug, Default)]
struct Hold {
    /// The link when it was last seen to be the limit, and when that was.
    limit: Option<(LinkNote, Duration)>,
    waits_since: Option<Duration>,
    is_behind: bool,
}

impl Hold {
    /// How long to wait before the next look; `None` where the next event may go. An event of this stream weighs `event_bytes`.
    fn wait(&mut self, now: Duration, link: LinkNote, queue: Queue, event_bytes: u64) -> Option<Duration> {
        if link.delivery_rate.is_some() {
            self.limit = Some((link, now));
        }
        self.limit = self.limit.filter(|(_, at)| now < *at + REMEMBERED);
        // What was held back while the socket was full shares events when it no longer is.
        self.is_behind = self.limit.is_some() || queue.refused_bytes > 0 || self.waits_since.is_some();
        let wait = self.look_again_after(queue, event_bytes);
        let waits_since = *self.waits_since.get_or_insert(now);
        if wait.is_none() || now >= waits_since + LONGEST_WAIT {
            self.waits_since = None;
            return None;
        }
        wait
    }

    fn look_again_after(&self, queue: Queue, event_bytes: u64) -> Option<Duration> {
        let Some((link, _)) = self.limit else { return (queue.refused_bytes > 0).then_some(LATEST_LOOK / 5) };
        let rate = link.delivery_rate.unwrap_or(0.0);
        // An event is acknowledged as a whole: while one is on the way the next may follow.
        let kept_busy = (rate * (link.min_rtt + KEPT_BUSY).as_secs_f64()).max(event_bytes as f64);
        let excess = queue.undelivered_bytes.saturating_add(link.beyond_bytes) as f64 - kept_busy;
        if excess <= 0.0 && queue.refused_bytes == 0 {
            return None;
        }
        let drained_after = Duration::try_from_secs_f64(excess.max(0.0) / rate).unwrap_or(LATEST_LOOK);
        Some(drained_after.clamp(SOONEST_LOOK, LATEST_LOOK))
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
        meter.connection().set_behind(false);
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
            connection.set_behind(self.hold.is_behind);
            match wait {
                Some(wait) => sleep(wait).await,
                None => return,
            }
        }
    }

    /// Whether what waits is to share events.
    pub fn is_behind(&self) -> bool {
        self.hold.is_behind
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
        assert_eq!(hold.wait(ms(0), narrow(11_000.0), queued(770), EVENT), Some(ms(20)), "20 ms for 220 bytes too many");
        assert_eq!(hold.wait(ms(20), narrow(11_000.0), queued(550), EVENT), None);
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
