//! What pacing remembers of one stream, and whether it runs now: the law's credit under `per-connection`, a bound in every mode, the rate cap.

use std::time::Duration;

use super::{
    LOOK_AGAIN_AFTER, MAX_UNDELIVERED_BYTES, PacingLaw, RATE_CAP_TOLERANCE,
    law::{Credit, Law, LawState},
};
use crate::scheduler::{Pacing, StreamSignal};

#[derive(Clone, Debug)]
pub(in crate::scheduler) struct StreamPacing {
    law: LawState,
    /// What a token weighs in a chunk of its own, as of the last look: what it costs.
    chunk_bytes: u64,
    /// When the rate cap lets the next token go, [`RATE_CAP_TOLERANCE`] aside.
    next_token: Duration,
    /// The connection's health at the last look, where this mode uses it; else 1.
    pub(in crate::scheduler) health: f64,
    /// Whether it sits the step out that is being planned.
    pub(in crate::scheduler) sits_out: bool,
    /// Since when it has been sitting steps out for want of credit; `None` while it has some.
    pub(in crate::scheduler) paced_since: Option<Duration>,
    /// Whether it sat a step out for want of credit since its last token.
    pub(in crate::scheduler) sat_out: bool,
    /// Tokens that its credit still takes, as of the last look.
    pub(in crate::scheduler) credit_tokens: usize,
}

/// Output of steps in flight, which nobody has yet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::scheduler) struct Pending {
    pub(in crate::scheduler) tokens: usize,
    /// What they will be charged to.
    pub(in crate::scheduler) rate_cap: Option<f64>,
}

/// Why a stream sits a step out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scheduler) struct Wait {
    /// When to look again.
    pub(in crate::scheduler) until: Duration,
    /// Its link is behind; otherwise it is ahead of the rate cap, which says nothing of the link.
    pub(in crate::scheduler) for_credit: bool,
}

impl Default for StreamPacing {
    fn default() -> Self {
        Self::new(PacingLaw::default())
    }
}

impl StreamPacing {
    pub(in crate::scheduler) fn new(law: PacingLaw) -> Self {
        Self {
            law: law.into(),
            chunk_bytes: 0,
            next_token: Duration::ZERO,
            health: 1.0,
            sits_out: false,
            paced_since: None,
            sat_out: false,
            credit_tokens: usize::MAX,
        }
    }

    /// Decides whether the stream runs now: `None`, or why not. `signal` is asked only where it matters. A pending token counts as sent
    /// now, and as a chunk of its own that is not delivered.
    pub(in crate::scheduler) fn look(
        &mut self,
        pacing: Pacing,
        now: Duration,
        pending: Pending,
        signal: impl FnOnce() -> Option<StreamSignal>,
    ) -> Option<Wait> {
        let next_token = match pending.rate_cap.filter(|_| pending.tokens > 0) {
            Some(rate) => self.next_token.max(now).saturating_add(interval(rate).saturating_mul(pending.tokens as u32)),
            None => self.next_token,
        };
        let capped_until = next_token.saturating_sub(RATE_CAP_TOLERANCE);
        let wait = if now < capped_until {
            Some(Wait { until: capped_until, for_credit: false })
        } else {
            let mut look_again_after = LOOK_AGAIN_AFTER;
            self.credit_tokens = signal().map_or(usize::MAX, |signal| {
                let credit = self.credit(pacing, now, &signal);
                look_again_after = credit.look_again_after;
                (credit.bytes.div_ceil(self.chunk_bytes) as usize).saturating_sub(pending.tokens)
            });
            (self.credit_tokens == 0).then(|| Wait { until: now + look_again_after, for_credit: true })
        };
        self.sits_out = wait.is_some();
        self.paced_since = wait.filter(|wait| wait.for_credit).map(|_| self.paced_since.unwrap_or(now));
        self.sat_out |= self.paced_since.is_some();
        wait
    }

    fn credit(&mut self, pacing: Pacing, now: Duration, signal: &StreamSignal) -> Credit {
        self.chunk_bytes = u64::from(signal.chunk_bytes.max(1));
        let bound = MAX_UNDELIVERED_BYTES.saturating_sub(signal.undelivered_bytes);
        if pacing != Pacing::PerConnection {
            self.health = 1.0;
            return Credit::until_acknowledged(bound);
        }
        self.health = signal.health;
        let credit = self.law.credit(now, signal);
        Credit { bytes: credit.bytes.min(bound), ..credit }
    }

    /// Charges one token to the law and to the rate cap.
    pub(in crate::scheduler) fn token_sent(&mut self, rate_cap: Option<f64>, now: Duration) {
        self.law.spend(self.chunk_bytes);
        if let Some(rate) = rate_cap {
            self.next_token = self.next_token.max(now).saturating_add(interval(rate));
        }
    }
}

/// From one token to the next.
fn interval(rate: f64) -> Duration {
    Duration::try_from_secs_f64(rate.recip()).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_full_window_sits_out_and_is_looked_at_again() {
        let mut stream = StreamPacing::default();
        let look = |stream: &mut StreamPacing, undelivered_bytes, ms| {
            stream.look(Pacing::PerConnection, Duration::from_millis(ms), Pending::default(), || {
                Some(StreamSignal {
                    health: 1.0,
                    undelivered_bytes,
                    delivery_rate_bytes_per_s: Some(4_000.0),
                    min_rtt_us: Some(50_000),
                    chunk_bytes: 220,
                })
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
        fn a_capped_stream_keeps_its_rate(rate in 0.5..200.0f64, steps in prop::collection::vec(1..200u64, 1..200)) {
            let mut stream = StreamPacing::default();
            let (mut now, mut sent) = (Duration::ZERO, 0u32);
            for step in steps {
                match stream.look(Pacing::Off, now, Pending::default(), || None) {
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
                        prop_assert!(early <= now || stream.look(Pacing::Off, early, Pending::default(), || None).is_some());
                        now = wait.until;
                        prop_assert_eq!(stream.look(Pacing::Off, now, Pending::default(), || None), None);
                    }
                }
            }
        }
    }
}
