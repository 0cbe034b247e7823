//! Virtual time: nanoseconds since the simulation began.

use std::time::Duration;

pub type Nanos = u64;

pub const MILLISECOND: Nanos = 1_000_000;

pub fn seconds(time: Nanos) -> f64 {
    time as f64 / 1e9
}

/// Rounded up, so that what is waited for has happened by then.
pub fn from_seconds(seconds: f64) -> Nanos {
    (seconds * 1e9).ceil() as Nanos
}

pub fn nanos(duration: Duration) -> Nanos {
    duration.as_nanos() as Nanos
}

pub fn duration(time: Nanos) -> Duration {
    Duration::from_nanos(time)
}
