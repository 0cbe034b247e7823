//! A testbed on one machine: real daemons, real TCP, links that can be throttled.
//!
//! [`daemon`] starts the project's binaries and ends them; [`netns`] gives each client its own network namespace and link, [`proxy`] stands between;
//! [`stream`] reads a token stream in it; [`browser`] looks at the pages; [`soak`] sends random clients; [`python`] and [`promtool`] find the programs
//! that others wrote. [`kit`] packs what checks a GPU elsewhere. [`experiment`] compares the modes of pacing. `cargo xtask demo` uses it too.

pub mod browser;
pub mod daemon;
pub mod experiment;
pub mod http;
pub mod kit;
pub mod netns;
pub mod promtool;
pub mod proxy;
pub mod python;
mod random;
pub mod realtime;
#[cfg(feature = "simulator")]
pub mod simulator;
pub mod soak;
pub mod stream;
