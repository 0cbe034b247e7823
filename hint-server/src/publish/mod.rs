//! Serves what is known (DESIGN section 3): the aggregate, single connections, the stream of changes, metrics, a page to look at.

mod feed;
mod metrics;
mod routes;

pub use feed::{Feed, Subscription, Update};
pub use metrics::{Metrics, source_name};
pub use routes::router;
