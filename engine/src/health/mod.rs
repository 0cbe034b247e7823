//! What is known of the links that carry streams: the engine's own sockets, and the hint server's snapshot of them.
//!
//! A stream's health is the least of these, each 1 where it knows nothing:
//!
//! 1. of the socket that carries it, what the hint server says of its cookie; where it has no word (or there is none), the engine's own
//!    `TCP_INFO` (`local`), which is also asked about queues that a hint server in another namespace cannot see;
//! 2. of the client's connection to a gateway, where a trusted proxy names it ([`Origin`]), what the hint server says of that, its own or
//!    one that another host shares with it; what waits there of the stream counts as undelivered too (see `beyond`), and the slower of both
//!    rates is the stream's. Other hosts tell of connections in trouble alone: one that they know to be well is unknown here;
//! 3. what the request says of itself ([`ClientWord`]): a `health_factor`, and, only where neither of the above has measured the path to
//!    the client itself, its `X-Client-RTT` (so one above 400 ms counts also where another host's hint server, unheard, knows better). A
//!    request may ask for less than was measured and never gets more.

mod beyond;
mod client;
mod coalesce;
mod connection;
mod links;
mod local;
mod meter;

pub use client::{ClientWord, Origin};
pub use coalesce::Coalescer;
pub(crate) use coalesce::MOST_SHARED_BYTES;
pub use connection::{Connection, TrackedStream, TrackedTls};
pub use links::Links;
pub use local::LocalHealth;
pub use meter::StreamMeter;
