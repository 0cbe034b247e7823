//! Hosts and links on one machine: each host is a network namespace, each link a veth pair or two TUN devices, shaped while packets flow.
//!
//! [`Namespace`] is one client with a direct link to us. A [`Topology`] puts clients behind routers, so that the bottleneck is not the server's
//! own queue (which would push back on its sockets instead of dropping); a [`LinkShape`] says what a link does, [`RttProbe`] what its queue
//! costs. Everything is removed on drop, and by [`remove_stale`] after a kill.

mod commands;
mod congestion_control;
mod delay;
mod host;
mod link;
mod namespace;
mod network;
mod queue;
mod rtt;
mod shape;
mod topology;

pub use congestion_control::CongestionControl;
pub use host::{ClientHost, Host, remove_stale};
pub use link::Link;
pub use namespace::Namespace;
pub use queue::QueueState;
pub use rtt::{RttProbe, RttSample};
pub use shape::LinkShape;
pub use topology::{ClientSpec, Group, Topology, TopologySpec};

/// Why this machine cannot have namespaces and links, or `None` where it can.
pub fn unavailable() -> Option<String> {
    // SAFETY: geteuid(2) has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        return Some("network namespaces need root".to_owned());
    }
    ["ip", "tc"].iter().find(|tool| commands::run(tool, &["-V"]).is_err()).map(|tool| format!("{tool} is missing (package iproute2)"))
}
