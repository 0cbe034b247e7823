//! What is known of the links that carry streams: the engine's own sockets, and the hint server's snapshot of them.

mod connection;
mod links;
mod local;
mod meter;

pub use connection::{Connection, TrackedStream, TrackedTls};
pub use links::Links;
pub use local::LocalHealth;
pub use meter::StreamMeter;
