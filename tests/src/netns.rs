//! Network namespaces, one client host each, joined to ours by a veth pair whose rate can be throttled and freed.

mod shape;

use std::{
    fs::File,
    net::Ipv4Addr,
    os::fd::AsRawFd,
    process::{Command, id},
    sync::atomic::{AtomicU8, Ordering},
};

use anyhow::{Context, bail, ensure};

pub use shape::LinkShape;

/// Names begin so, followed by the owner's process id: what a dead owner left can be told apart and removed.
const PREFIX: &str = "tflow";

/// Third octets of the testbed's networks, 10.83.N.0/30.
static NEXT_NETWORK: AtomicU8 = AtomicU8::new(1);

/// A namespace with one link to ours. Its link and its name are removed when it is dropped; it is gone when no socket is left in it.
pub struct Namespace {
    name: String,
    /// Our end of the link.
    link: String,
    /// Our address on the link, which the namespace reaches.
    pub host: Ipv4Addr,
    /// The namespace's address.
    pub peer: Ipv4Addr,
}

impl Namespace {
    /// Why this machine cannot have namespaces, or `None` where it can.
    pub fn unavailable() -> Option<String> {
        // SAFETY: geteuid(2) has no preconditions.
        if unsafe { libc::geteuid() } != 0 {
            return Some("network namespaces need root".to_owned());
        }
        ["ip", "tc"].iter().find(|tool| run(tool, &["-V"]).is_err()).map(|tool| format!("{tool} is missing (package iproute2)"))
    }

    /// # Errors
    /// When `ip` refuses; the message is its own.
    pub fn new() -> anyhow::Result<Self> {
        let n = NEXT_NETWORK.fetch_add(1, Ordering::Relaxed);
        // Test binaries run one after the other, but an xtask may run beside them.
        let third = (id() % 200) as u8;
        let octet = n.wrapping_mul(4);
        let host = Ipv4Addr::new(10, 83, third, octet.wrapping_add(1));
        let peer = Ipv4Addr::new(10, 83, third, octet.wrapping_add(2));
        let name = format!("{PREFIX}-{}-{n}", id());
        let link = format!("tf{}n{n}", id());
        run("ip", &["netns", "add", &name])?;
        let namespace = Self { name, link, host, peer };
        let far = format!("{}p", namespace.link);
        run("ip", &["link", "add", &namespace.link, "type", "veth", "peer", "name", &far, "netns", &namespace.name])?;
        run("ip", &["addr", "add", &format!("{host}/30"), "dev", &namespace.link])?;
        run("ip", &["link", "set", &namespace.link, "up"])?;
        run("ip", &["-n", &namespace.name, "addr", "add", &format!("{peer}/30"), "dev", &far])?;
        run("ip", &["-n", &namespace.name, "link", "set", &far, "up"])?;
        run("ip", &["-n", &namespace.name, "link", "set", "lo", "up"])?;
        // Segments of 64 KB would not fit a small burst.
        if run("ethtool", &["-K", &namespace.link, "tso", "off", "gso", "off", "gro", "off"]).is_err() {
            run("ip", &["link", "set", &namespace.link, "gso_max_segs", "1"])?;
        }
        Ok(namespace)
    }

    /// Limits what we send to the namespace, for example `"32kbit"`; `limit` bytes may wait in the queue before packets are dropped.
    ///
    /// # Errors
    /// When `tc` refuses.
    pub fn throttle(&self, rate: &str, limit: &str) -> anyhow::Result<()> {
        run("tc", &["qdisc", "replace", "dev", &self.link, "root", "tbf", "rate", rate, "burst", "4k", "limit", limit])
    }

    /// Removes the limit.
    ///
    /// # Errors
    /// When `tc` refuses.
    pub fn free(&self) -> anyhow::Result<()> {
        run("tc", &["qdisc", "del", "dev", &self.link, "root"])
    }

    /// Moves the calling thread into the namespace; sockets that it opens from then on belong there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn enter(&self) -> anyhow::Result<()> {
        let file = File::open(format!("/run/netns/{}", self.name)).context("the namespace is gone")?;
        // SAFETY: setns(2) with a descriptor that we own; it changes this thread only.
        let rc = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
        ensure!(rc == 0, "setns: {}", std::io::Error::last_os_error());
        Ok(())
    }

    /// A command that will run in the namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = run("ip", &["link", "del", &self.link]);
        let _ = run("ip", &["netns", "del", &self.name]);
    }
}

/// Removes the namespaces of owners that no longer live, such as one that was killed.
pub fn remove_stale() {
    let Ok(folder) = std::fs::read_dir("/run/netns") else { return };
    for name in folder.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1));
        if owner.is_some_and(|pid| !std::path::Path::new("/proc").join(pid).exists()) {
            let _ = run("ip", &["netns", "del", &name]);
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
