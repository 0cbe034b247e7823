//! A testbed on one machine: real daemons, real TCP, links that can be throttled.
//!
//! [`daemon`] starts the project's binaries and ends them; [`netns`] gives each client its own network namespace and link;
//! [`stream`] reads a token stream in it; [`python`] finds the clients that others wrote. `cargo xtask demo` uses it too.

pub mod daemon;
pub mod http;
pub mod netns;
pub mod python;
pub mod stream;
