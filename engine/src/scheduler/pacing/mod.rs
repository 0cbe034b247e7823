//! How the health of links becomes a budget, a share and each stream's credit. Pure functions of signals and time.
//!
//! `share` scales what a step may hold; `law` says how much output a stream may add now, by one of several control laws (`window`,
//! `token_bucket`, `aimd`); `stream` asks it for one stream, step by step. A new law is a file and a line in `law`.

mod aimd;
mod law;
mod share;
mod stream;
mod token_bucket;
mod window;

#[cfg(test)]
mod properties;

use std::time::Duration;

pub use law::PacingLaw;
pub use share::{prefill_chunk, step_budget};
pub(super) use stream::{Pending, StreamPacing, Wait};

/// In every mode a stream with this much undelivered output sits steps out: a slow reader costs bounded memory.
pub const MAX_UNDELIVERED_BYTES: u64 = 1 << 20;
/// What a stream whose network is not the limit may have undelivered.
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
