//! What the hint server says, as its readers see it: wire types and a subscriber that never blocks.

mod types;

pub use types::{Connection, Hint, HintEvent, HintMetrics, Source, Terms};
