//! How the health of links becomes a budget and a window (DESIGN section 4). Pure functions of signals and time.
//!
//! Credit is returned by acknowledgements, not computed from a rate: a stream runs while it has less than a window undelivered.

use std::time::Duration;

use super::{Pacing, StreamSignal};

/// In every mode a stream with this much undelivered output sits steps out: a slow reader costs bounded memory.
pub const MAX_UNDELIVERED_BYTES: u64 = 1 << 20;
/// Window of a stream whose network is not the limit.
pub const OPEN_WINDOW_BYTES: u64 = 64 << 10;
/// A stream may always have this many chunks on the way.
pub const MIN_WINDOW_CHUNKS: u64 = 4;
/// How much of the link's time may be queued, on top of its round trip.
pub const TARGET_QUEUE: Duration = Duration::from_millis(250);
/// When to look again at streams that wait for acknowledgements.
pub const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(5);
/// A stream that has been sitting out for this long gives its blocks and its seat to others that wait for them.
pub const PARK_AFTER: Duration = Duration::from_secs(2);
/// How far a capped stream may run ahead of its rate, so that it catches up after a slow step.
pub const RATE_CAP_TOLERANCE: Duration = Duration::from_millis(100);
/// Least budget of a step under `global`, so that even a health of 0 makes progress.
pub const MIN_STEP_BUDGET: usize = 16;

/// Tokens that a step may have: `max_num_batched_tokens`, under `global` scaled by the aggregate health.
pub fn step_budget(pacing: Pacing, max_num_batched_tokens: usize, health_factor: impl FnOnce() -> f64) -> usize {
    match pacing {
        Pacing::Off | Pacing::PerConnection => max_num_batched_tokens,
        Pacing::Global => {
            let scaled = (max_num_batched_tokens as f64 * fail_open(health_factor())).round() as usize;
            scaled.max(MIN_STEP_BUDGET).min(max_num_batched_tokens)
        }
    }
}

/// Tokens of a prompt to compute now, of `remaining` where the step has room for `left`: what is free, scaled by the
/// connection's health, but at least a block, so that it makes progress.
pub fn prefill_chunk(remaining: usize, left: usize, health: f64, block_size: usize) -> usize {
    let share = (left as f64 * fail_open(health)).ceil() as usize;
    share.max(block_size).min(remaining).min(left)
}

/// Bytes that a stream may have undelivered: what its link carries in a round trip and [`TARGET_QUEUE`], shaped by health.
pub fn window_bytes(signal: &StreamSignal) -> u64 {
    let link = match signal.delivery_rate_bytes_per_s {
        Some(rate) => rate * (Duration::from_micros(signal.min_rtt_us.unwrap_or(0).into()) + TARGET_QUEUE).as_secs_f64(),
        None => OPEN_WINDOW_BYTES as f64,
    };
    let floor = (MIN_WINDOW_CHUNKS * u64::from(signal.chunk_bytes)).max(1);
    ((link * shape(signal.health)) as u64).max(floor).min(MAX_UNDELIVERED_BYTES)
}

/// The window is halved, and halved again, as health falls.
fn shape(health: f64) -> f64 {
    match fail_open(health) {
        h if h >= 0.75 => 1.0,
        h if h >= 0.5 => 0.5,
        _ => 0.25,
    }
}

fn fail_open(health: f64) -> f64 {
    if health.is_nan() { 1.0 } else { health.clamp(0.0, 1.0) }
}

/// What pacing remembers of one stream.
#[derive(Clone, Debug)]
pub(super) struct StreamPacing {
    /// The window in force: it closes at once, but opens no faster than twofold in [`TARGET_QUEUE`]. A window so small that the
    /// link idles makes us the limit instead of the network, and the rate unknown; opening it at once would bring the queue back.
    window: f64,
    looked_at: Duration,
    /// When the rate cap lets the next token go, [`RATE_CAP_TOLERANCE`] aside.
    next_token: Duration,
    /// The connection's health at the last look, where this mode uses it; else 1.
    pub(super) health: f64,
    /// Whether it sits the step out that is being planned.
    pub(super) sits_out: bool,
    /// Since when it has been sitting steps out for want of credit; `None` while it has some.
    pub(super) paced_since: Option<Duration>,
    /// Whether it sat a step out for want of credit since its last token.
    pub(super) sat_out: bool,
    /// Tokens that its window still takes, as of the last look.
    pub(super) credit_tokens: usize,
}

/// Why a stream sits a step out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    /// When to look again.
    pub(super) until: Duration,
    /// Its link is behind; otherwise it is ahead of the rate cap, which says nothing of the link.
    pub(super) for_credit: bool,
}

impl Default for StreamPacing {
    fn default() -> Self {
        Self {
            window: MAX_UNDELIVERED_BYTES as f64,
            looked_at: Duration::ZERO,
            next_token: Duration::ZERO,
            health: 1.0,
            sits_out: false,
            paced_since: None,
            sat_out: false,
            credit_tokens: usize::MAX,
        }
    }
}

impl StreamPacing {
    /// Decides whether the stream runs now: `None`, or why not. `signal` is asked only where it matters.
    pub(super) fn look(&mut self, pacing: Pacing, now: Duration, signal: impl FnOnce() -> Option<StreamSignal>) -> Option<Wait> {
        let capped_until = self.next_token.saturating_sub(RATE_CAP_TOLERANCE);
        let wait = if now < capped_until {
            Some(Wait { until: capped_until, for_credit: false })
        } else {
            self.credit_tokens = signal().map_or(usize::MAX, |signal| {
                let credit = self.window(pacing, now, &signal).saturating_sub(signal.undelivered_bytes);
                credit.div_ceil(u64::from(signal.chunk_bytes.max(1))) as usize
            });
            (self.credit_tokens == 0).then(|| Wait { until: now + LOOK_AGAIN_AFTER, for_credit: true })
        };
        self.sits_out = wait.is_some();
        self.paced_since = wait.filter(|wait| wait.for_credit).map(|_| self.paced_since.unwrap_or(now));
        self.sat_out |= self.paced_since.is_some();
        wait
    }

    fn window(&mut self, pacing: Pacing, now: Duration, signal: &StreamSignal) -> u64 {
        if pacing != Pacing::PerConnection {
            self.health = 1.0;
            return MAX_UNDELIVERED_BYTES;
        }
        self.health = signal.health;
        let elapsed = now.saturating_sub(self.looked_at).as_secs_f64() / TARGET_QUEUE.as_secs_f64();
        self.window = (window_bytes(signal) as f64).min(self.window * elapsed.exp2());
        self.looked_at = now;
        self.window as u64
    }

    /// Charges one token to the rate cap.
    pub(super) fn token_sent(&mut self, rate_cap: Option<f64>, now: Duration) {
        if let Some(rate) = rate_cap {
            let interval = Duration::try_from_secs_f64(rate.recip()).unwrap_or(Duration::MAX);
            self.next_token = self.next_token.max(now).saturating_add(interval);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHUNK: u32 = 220;

    fn signal(health: f64, rate: Option<f64>) -> StreamSignal {
        StreamSignal { health, undelivered_bytes: 0, delivery_rate_bytes_per_s: rate, min_rtt_us: Some(50_000), chunk_bytes: CHUNK }
    }

    #[test]
    fn the_window_is_what_the_link_carries_in_a_round_trip_and_a_quarter_second() {
        assert_eq!(window_bytes(&signal(1.0, Some(40_000.0))), 12_000);
        assert_eq!(window_bytes(&signal(0.74, Some(40_000.0))), 6_000);
        assert_eq!(window_bytes(&signal(0.2, Some(40_000.0))), 3_000);
    }

    #[test]
    fn the_window_never_falls_below_a_few_chunks_nor_above_the_bound() {
        assert_eq!(window_bytes(&signal(0.0, Some(0.0))), 880);
        assert_eq!(window_bytes(&signal(1.0, Some(1e12))), MAX_UNDELIVERED_BYTES);
        assert_eq!(window_bytes(&StreamSignal { chunk_bytes: 0, ..signal(0.0, Some(0.0)) }), 1);
    }

    #[test]
    fn a_stream_whose_network_is_not_the_limit_has_an_open_window() {
        assert_eq!(window_bytes(&signal(1.0, None)), OPEN_WINDOW_BYTES);
    }

    #[test]
    fn global_scales_the_budget_down_to_a_floor() {
        assert_eq!(step_budget(Pacing::Global, 2048, || 0.25), 512);
        assert_eq!(step_budget(Pacing::Global, 2048, || 0.0), MIN_STEP_BUDGET);
        assert_eq!(step_budget(Pacing::Global, 4, || 0.0), 4);
        assert_eq!(step_budget(Pacing::Global, 2048, || f64::NAN), 2048);
        assert_eq!(step_budget(Pacing::PerConnection, 2048, || 0.25), 2048);
    }

    #[test]
    fn a_prompt_on_a_bad_link_gets_a_share_but_at_least_a_block() {
        assert_eq!(prefill_chunk(5000, 2048, 0.25, 16), 512);
        assert_eq!(prefill_chunk(5000, 2048, 0.0, 16), 16);
        assert_eq!(prefill_chunk(5000, 8, 0.0, 16), 8);
        assert_eq!(prefill_chunk(100, 2048, 0.25, 16), 100);
    }

    #[test]
    fn a_closed_window_opens_twofold_in_a_quarter_second() {
        let mut stream = StreamPacing::default();
        let at = Duration::from_millis;
        assert_eq!(stream.window(Pacing::PerConnection, at(1000), &signal(1.0, Some(4_000.0))), 1_200);
        assert_eq!(stream.window(Pacing::PerConnection, at(1000), &signal(1.0, None)), 1_200);
        assert_eq!(stream.window(Pacing::PerConnection, at(1250), &signal(1.0, None)), 2_400);
        assert_eq!(stream.window(Pacing::PerConnection, at(9000), &signal(1.0, None)), OPEN_WINDOW_BYTES);
    }

    #[test]
    fn a_full_window_sits_out_and_is_looked_at_again() {
        let mut stream = StreamPacing::default();
        let look = |stream: &mut StreamPacing, undelivered_bytes, ms| {
            stream.look(Pacing::PerConnection, Duration::from_millis(ms), || {
                Some(StreamSignal { undelivered_bytes, ..signal(1.0, Some(4_000.0)) })
            })
        };
        let credit = |ms| Some(Wait { until: Duration::from_millis(ms), for_credit: true });
        assert_eq!(look(&mut stream, 1_199, 10), None);
        assert_eq!(look(&mut stream, 1_200, 20), credit(25));
        assert_eq!(look(&mut stream, 1_200, 25), credit(30));
        assert_eq!(stream.paced_since, Some(Duration::from_millis(20)));
        assert_eq!(look(&mut stream, 1_000, 30), None);
        assert_eq!((stream.paced_since, stream.sat_out), (None, true));
    }

    proptest! {
        #[test]
        fn the_window_is_monotone_in_health_and_rate(
            (low, high) in (0.0..=1.0f64, 0.0..=1.0f64).prop_map(|(a, b)| (a.min(b), a.max(b))),
            (slow, fast) in (0.0..1e7f64, 0.0..1e7f64).prop_map(|(a, b)| (a.min(b), a.max(b))),
        ) {
            prop_assert!(window_bytes(&signal(low, Some(slow))) <= window_bytes(&signal(high, Some(slow))));
            prop_assert!(window_bytes(&signal(low, None)) <= window_bytes(&signal(high, None)));
            prop_assert!(window_bytes(&signal(low, Some(slow))) <= window_bytes(&signal(low, Some(fast))));
        }

        #[test]
        fn a_chunk_is_monotone_in_health_and_fits(
            remaining in 1..5000usize, left in 1..5000usize, block in 1..64usize, low in 0.0..=1.0f64, high in 0.0..=1.0f64,
        ) {
            let (low, high) = (low.min(high), low.max(high));
            let chunk = prefill_chunk(remaining, left, low, block);
            prop_assert!(chunk >= 1 && chunk <= prefill_chunk(remaining, left, high, block));
            prop_assert_eq!(prefill_chunk(remaining, left, 1.0, block), remaining.min(left));
        }

        #[test]
        fn a_capped_stream_keeps_its_rate(rate in 0.5..200.0f64, steps in prop::collection::vec(1..200u64, 1..200)) {
            let mut stream = StreamPacing::default();
            let (mut now, mut sent) = (Duration::ZERO, 0u32);
            for step in steps {
                match stream.look(Pacing::Off, now, || None) {
                    None => {
                        sent += 1;
                        stream.token_sent(Some(rate), now);
                        let allowed = (now + RATE_CAP_TOLERANCE).as_secs_f64() * rate + 1.0;
                        prop_assert!(f64::from(sent) <= allowed + 1e-3, "{sent} tokens at {now:?}, {allowed} allowed");
                        now += Duration::from_millis(step);
                    }
                    Some(wait) => {
                        prop_assert!(!wait.for_credit && stream.paced_since.is_none(), "a cap says nothing of the link");
                        let early = wait.until.saturating_sub(Duration::from_nanos(1));
                        prop_assert!(early <= now || stream.look(Pacing::Off, early, || None).is_some());
                        now = wait.until;
                        prop_assert_eq!(stream.look(Pacing::Off, now, || None), None);
                    }
                }
            }
        }
    }
}
