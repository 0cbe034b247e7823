//! Other hosts' connections: each hint server puts its own into Redis and reads the others', so that any of them answers for any gateway.
//!
//! [`report`] is what a host says, as foreign data that is trusted in nothing; [`table`] is what is known of the others, and for how long;
//! [`share`] does the talking, from a task that nobody waits for. Without Redis, or with a slow one, only the others' connections are unknown.

mod report;
mod share;
mod table;

pub use report::{HostReport, MAX_CONNECTIONS, ReportError};
pub use share::{Share, ShareStatus};
pub use table::{EXPIRES, MAX_HOSTS, MAX_REMOTE_CONNECTIONS, PeerTable, Remote};
