//! Recorded measurements: what a probe saw, written down, so that a capture from the field becomes a test.
//!
//! [`Recorder`] writes what each round of looks saw; [`TraceReader`] reads it back; [`replay`] runs the tracker and its score over it in
//! the trace's own time, so that the same file always gives the same health.

mod format;
mod reader;
mod record;
mod replay;

pub mod command;

pub use format::{Header, Round, TraceLook, VERSION};
pub use reader::{TraceError, TraceReader};
pub use record::{Recorder, record};
pub use replay::{Replay, Score, Summary, replay};
