//! What a control law is, and which there are.
//!
//! A law sees one stream's signal and the time, and says how many bytes of output the stream may add now. It keeps its state to itself.

use std::{str::FromStr, time::Duration};

use super::{LOOK_AGAIN_AFTER, MIN_WINDOW_CHUNKS, aimd, token_bucket, window};
use crate::scheduler::StreamSignal;

/// One way to turn a stream's signal into credit.
pub(super) trait Law {
    /// What the stream may add at `now`.
    fn credit(&mut self, now: Duration, signal: &StreamSignal) -> Credit;

    /// The stream has added this much.
    fn spend(&mut self, _bytes: u64) {}
}

/// A law's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Credit {
    /// With none, the stream sits the step out.
    pub(super) bytes: u64,
    /// When to look again where there is none.
    pub(super) look_again_after: Duration,
}

impl Credit {
    /// Of a law whose credit comes back with acknowledgements.
    pub(super) fn until_acknowledged(bytes: u64) -> Self {
        Self { bytes, look_again_after: LOOK_AGAIN_AFTER }
    }
}

macro_rules! laws {
    ($($(#[$doc:meta])* $law:ident = $name:literal: $state:ty,)+) => {
        /// The control law of `--pacing per-connection`.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub enum PacingLaw {
            $($(#[$doc])* $law,)+
        }

        impl PacingLaw {
            pub const ALL: &[Self] = &[$(Self::$law,)+];
            /// As `--pacing-law` calls them.
            pub const NAMES: &[&'static str] = &[$($name,)+];

            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$law => $name,)+
                }
            }
        }

        /// What the chosen law remembers of one stream.
        #[derive(Clone, Debug)]
        pub(super) enum LawState {
            $($law($state),)+
        }

        impl From<PacingLaw> for LawState {
            fn from(law: PacingLaw) -> Self {
                match law {
                    $(PacingLaw::$law => Self::$law(Default::default()),)+
                }
            }
        }

        impl Law for LawState {
            fn credit(&mut self, now: Duration, signal: &StreamSignal) -> Credit {
                match self {
                    $(Self::$law(law) => law.credit(now, signal),)+
                }
            }

            fn spend(&mut self, bytes: u64) {
                match self {
                    $(Self::$law(law) => law.spend(bytes),)+
                }
            }
        }
    };
}

laws! {
    /// Undelivered output up to what the link carries in a round trip and a quarter second.
    #[default]
    Window = "window": window::Window,
    /// Output at the estimated delivery rate.
    TokenBucket = "token-bucket": token_bucket::TokenBucket,
    /// A rate that rises by steps and falls by a factor when too much is queued.
    Aimd = "aimd": aimd::Aimd,
}

impl FromStr for PacingLaw {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let law = Self::ALL.iter().find(|law| law.name() == name);
        law.copied().ok_or_else(|| format!("{name:?} is no pacing law; there are {}", Self::NAMES.join(", ")))
    }
}

/// Health as far as it is known; unknown is healthy.
pub(super) fn fail_open(health: f64) -> f64 {
    if health.is_nan() { 1.0 } else { health.clamp(0.0, 1.0) }
}

/// What is halved, and halved again, as health falls.
pub(super) fn shape(health: f64) -> f64 {
    match fail_open(health) {
        h if h >= 0.75 => 1.0,
        h if h >= 0.5 => 0.5,
        _ => 0.25,
    }
}

/// Bytes/s that the link carries, where that is known and makes sense.
pub(super) fn delivery_rate(signal: &StreamSignal) -> Option<f64> {
    signal.delivery_rate_bytes_per_s.filter(|rate| *rate >= 0.0)
}

pub(super) fn min_rtt(signal: &StreamSignal) -> Duration {
    Duration::from_micros(signal.min_rtt_us.unwrap_or(0).into())
}

/// Bytes of the few chunks that a stream may always have on the way.
pub(super) fn few_chunks(signal: &StreamSignal) -> u64 {
    (MIN_WINDOW_CHUNKS * u64::from(signal.chunk_bytes)).max(1)
}
