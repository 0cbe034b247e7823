//! What every law promises, whatever the signals: bounded, monotone in health, a number, and progress on a link that delivers.

use std::time::Duration;

use proptest::{collection::vec, prelude::*};

use super::{
    MAX_UNDELIVERED_BYTES, MIN_WINDOW_CHUNKS, PacingLaw, Pending, StreamPacing,
    law::{Law, LawState},
};
use crate::scheduler::{Pacing, StreamSignal};

fn law() -> impl Strategy<Value = PacingLaw> {
    prop::sample::select(PacingLaw::ALL)
}

/// Whatever a probe may say, with the microseconds since the look before.
fn any_look() -> impl Strategy<Value = (u64, StreamSignal)> {
    let rate = prop::option::of(prop_oneof![4 => 0.0..1e6f64, 1 => any::<f64>()]);
    let health = prop_oneof![4 => 0.0..=1.0f64, 1 => any::<f64>()];
    let undelivered = prop_oneof![Just(0), 0..100_000u64, any::<u64>()];
    let gap = prop_oneof![0..100_000u64, 0..10_000_000u64];
    (gap, health, undelivered, rate, any::<Option<u32>>(), prop_oneof![4 => 100..1_000u32, 1 => any::<u32>()]).prop_map(
        |(gap_us, health, undelivered_bytes, delivery_rate_bytes_per_s, min_rtt_us, chunk_bytes)| {
            (gap_us, StreamSignal { health, undelivered_bytes, delivery_rate_bytes_per_s, min_rtt_us, chunk_bytes })
        },
    )
}

proptest! {
    #[test]
    fn credit_is_bounded_and_always_says_when_to_look_again(law in law(), looks in vec((any_look(), 0..4u32), 1..60)) {
        let mut stream = StreamPacing::new(law);
        let mut now = Duration::ZERO;
        for ((gap_us, signal), spent) in looks {
            now += Duration::from_micros(gap_us);
            let wait = stream.look(Pacing::PerConnection, now, Pending::default(), || Some(signal));
            let chunk = u64::from(signal.chunk_bytes.max(1));
            let most = MAX_UNDELIVERED_BYTES.saturating_sub(signal.undelivered_bytes).div_ceil(chunk);
            prop_assert!(stream.credit_tokens as u64 <= most, "{} tokens, room for {most}", stream.credit_tokens);
            prop_assert_eq!(wait.is_some(), stream.credit_tokens == 0);
            if let Some(wait) = wait {
                prop_assert!(wait.until > now && wait.until <= now + Duration::from_secs(1), "{:?} at {now:?}", wait.until);
            } else {
                (0..spent).for_each(|_| stream.token_sent(None, now));
            }
        }
    }

    #[test]
    fn better_health_never_gives_less(
        law in law(), looks in vec((any_look(), 0.0..=1.0f64, 0.0..=1.0f64, 0..3u64), 1..60),
    ) {
        let (mut worse, mut better) = (LawState::from(law), LawState::from(law));
        let mut now = Duration::ZERO;
        for ((gap_us, signal), one, other, spent) in looks {
            now += Duration::from_micros(gap_us);
            let low = worse.credit(now, &StreamSignal { health: one.min(other), ..signal }).bytes;
            let high = better.credit(now, &StreamSignal { health: one.max(other), ..signal }).bytes;
            prop_assert!(low <= high, "{low} bytes at health {}, {high} at {}", one.min(other), one.max(other));
            let bytes = spent * u64::from(signal.chunk_bytes);
            worse.spend(bytes);
            better.spend(bytes);
        }
    }

    /// Whatever was seen before: with all output delivered, a stream gets tokens within a second, health and rate at their worst.
    #[test]
    fn a_stream_whose_link_delivers_makes_progress(law in law(), looks in vec((any_look(), any::<bool>()), 0..60), rate in prop::option::of(Just(0.0))) {
        let mut stream = StreamPacing::new(law);
        let mut now = Duration::ZERO;
        let usual = |signal: StreamSignal| StreamSignal { chunk_bytes: 200, ..signal };
        for ((gap_us, signal), runs) in looks {
            now += Duration::from_micros(gap_us);
            if stream.look(Pacing::PerConnection, now, Pending::default(), || Some(usual(signal))).is_none() && runs {
                stream.token_sent(None, now);
            }
        }
        let delivered = StreamSignal {
            health: 0.0, undelivered_bytes: 0, delivery_rate_bytes_per_s: rate, min_rtt_us: Some(20_000), chunk_bytes: 200,
        };
        let (end, mut tokens) = (now + Duration::from_secs(1), 0);
        while now < end {
            match stream.look(Pacing::PerConnection, now, Pending::default(), || Some(delivered)) {
                None => {
                    tokens += 1;
                    stream.token_sent(None, now);
                    now += Duration::from_millis(20);
                }
                Some(wait) => now = wait.until,
            }
        }
        prop_assert!(tokens >= MIN_WINDOW_CHUNKS - 1, "{tokens} tokens in a second");
    }

    #[test]
    fn a_law_is_found_by_its_name(law in law()) {
        prop_assert_eq!(law.name().parse(), Ok(law));
    }
}

#[test]
fn an_unknown_name_is_answered_with_those_there_are() {
    let error = "fuzzy".parse::<PacingLaw>().unwrap_err();
    assert_eq!(error, "\"fuzzy\" is no pacing law; there are window, token-bucket, aimd");
}
