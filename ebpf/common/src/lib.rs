//! What the kernel program and its loader share: the types in the maps and the ring buffer; and the program's logic, where the host can test it.
//!
//! Layouts are `repr(C)` without padding, so that both sides and every byte of a map value agree.

#![no_std]

mod config;
mod counter;
mod event;
pub mod handler;
mod stats;

pub use config::{Config, MAX_WATCH_PORTS};
pub use counter::Counter;
pub use event::{Event, EventKind};
pub use stats::{ConnectionStats, Endpoint};

/// Connections that the map holds; the least recently used one makes room for a new one.
pub const MAX_CONNECTIONS: u32 = 65_536;

/// Bytes of the event ring: about 8,000 events between two reads.
pub const EVENT_RING_BYTES: u32 = 256 * 1024;
