//! One client host, joined to ours by a veth pair whose rate can be throttled and freed: the server's own queue is the bottleneck.

use std::{net::Ipv4Addr, process::Command};

use super::{
    ClientHost, Host,
    commands::{batch, run},
    host::device_name,
    link::DOWNSTREAM,
    network::Network,
};

/// A client host with one link to ours. Both are removed when it is dropped.
pub struct Namespace {
    /// Our end of the link.
    link: String,
    /// Our address on the link, which the namespace reaches.
    pub host: Ipv4Addr,
    /// The namespace's address.
    pub peer: Ipv4Addr,
    client: Host,
    _network: Network,
}

impl Namespace {
    /// Why this machine cannot have namespaces, or `None` where it can.
    pub fn unavailable() -> Option<String> {
        super::unavailable()
    }

    /// # Errors
    /// When `ip` refuses; the message is its own.
    pub fn new() -> anyhow::Result<Self> {
        let network = Network::take()?;
        let (host, peer) = (network.near(), network.far());
        let client = Host::new()?;
        let link = device_name();
        let (ours, theirs) = (network.near_mac(), network.far_mac());
        // Segments of 64 KB would not fit a small burst, and answers of ARP would wait in the queue until who asked gives up.
        let near_end = format!(
            "link add {link} address {ours} type veth peer name {DOWNSTREAM} address {theirs} netns {}\naddr add {host}/30 dev {link}\n\
             link set {link} gso_max_segs 1 up\nneigh add {peer} lladdr {theirs} dev {link} nud permanent",
            client.name()
        );
        batch("ip", None, &near_end)?;
        let namespace = Self { link, host, peer, client, _network: network };
        let far_end = format!(
            "addr add {peer}/30 dev {DOWNSTREAM}\nlink set {DOWNSTREAM} up\nneigh add {host} lladdr {ours} dev {DOWNSTREAM} nud permanent"
        );
        namespace.client.ip(&far_end)?;
        Ok(namespace)
    }

    /// Limits what we send to the namespace, for example `"32kbit"`; `limit` bytes may wait in the queue before packets are dropped.
    ///
    /// # Errors
    /// When `tc` refuses.
    pub fn throttle(&self, rate: &str, limit: &str) -> anyhow::Result<()> {
        run("tc", &["qdisc", "replace", "dev", &self.link, "root", "tbf", "rate", rate, "burst", "4k", "limit", limit])?;
        Ok(())
    }

    /// Removes the limit.
    ///
    /// # Errors
    /// When `tc` refuses.
    pub fn free(&self) -> anyhow::Result<()> {
        run("tc", &["qdisc", "del", "dev", &self.link, "root"])?;
        Ok(())
    }

    /// A command that will run in the namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.client.command(program)
    }
}

impl ClientHost for Namespace {
    fn enter(&self) -> anyhow::Result<()> {
        self.client.enter()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = run("ip", &["link", "del", &self.link]);
    }
}
