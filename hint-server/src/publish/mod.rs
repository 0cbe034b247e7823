//! Serves what is known: the aggregate and single connections, as snapshots and as a stream of changes, other hosts, metrics, and a page to
//! look at; to those who may see it ([`access`]), by a name that is this host's ([`host`]).

mod access;
mod app;
mod dashboard;
mod feed;
mod history;
mod host;
mod metrics;
mod routes;

pub use access::{Access, Origin, Reader};
pub use app::App;
pub use feed::{Feed, Subscription, Told, Update};
pub use history::{History, Sample};
pub use host::AllowedHosts;
pub use metrics::{Metrics, render as metrics_page, source_name};
pub use routes::{router, unix_router};
