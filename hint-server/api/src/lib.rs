//! What the hint server says, as its readers see it: wire types and a subscriber that never blocks.
//!
//! [`Subscriber`] follows `GET /hint/stream` of the server that a [`HintUrl`] names and keeps the latest [`HintState`].
//! Who wants every event, or reads another event stream, takes [`EventStream`] or the parser in [`sse`]. [`page`] is what the web pages share.

mod types;
mod url;

mod backoff;
pub mod page;
pub mod sse;
mod state;
mod stream;

mod subscriber;

pub use backoff::Backoff;
pub use state::HintState;
pub use stream::{EventStream, StreamError, TOKEN_ENVIRONMENT};
pub use subscriber::{STALE_AFTER, Status, Subscriber};
pub use types::{Connection, Hint, HintEvent, HintMetrics, RemoteConnection, Source, Terms};
pub use url::{HintUrl, HintUrlError};
