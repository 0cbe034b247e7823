//! A host of the testbed: a network namespace, in which threads and commands can run.

use std::{
    fs::File,
    os::fd::AsRawFd,
    process::{Command, id},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, ensure};

use super::commands::{batch, run};

/// Names begin so, followed by the owner's process id: what a dead owner left can be told apart and removed.
const PREFIX: &str = "tflow";

static SERIAL: AtomicU32 = AtomicU32::new(1);

/// Where a client of the testbed lives.
pub trait ClientHost: Send + Sync {
    /// Moves the calling thread there; sockets that it opens from then on belong there.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn enter(&self) -> anyhow::Result<()>;
}

/// A namespace whose name goes when it is dropped; it is gone itself when no socket is left in it.
pub struct Host {
    name: String,
}

impl Host {
    /// # Errors
    /// When `ip` refuses; the message is its own.
    pub fn new() -> anyhow::Result<Self> {
        let name = format!("{PREFIX}-{}-{}", id(), SERIAL.fetch_add(1, Ordering::Relaxed));
        run("ip", &["netns", "add", &name])?;
        let host = Self { name };
        host.ip("link set lo up")?;
        host.within(|| {
            for scope in ["all", "default"] {
                // Neighbour discovery would share narrow links with the streams; a kernel without IPv6 has none to switch off.
                let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1");
            }
            Ok(())
        })?;
        Ok(host)
    }

    /// One that forwards between its links.
    ///
    /// # Errors
    /// As [`Host::new`].
    pub fn router() -> anyhow::Result<Self> {
        let host = Self::new()?;
        host.within(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("cannot switch on forwarding"))?;
        Ok(host)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Runs `act` in the namespace; sockets and devices made there stay there.
    ///
    /// # Errors
    /// Those of `act`, or when the kernel refuses.
    pub fn within<T: Send>(&self, act: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter()?;
                act()
            });
            inside.join().map_err(|_| anyhow::anyhow!("panicked in namespace {}", self.name))?
        })
    }

    /// A command that will run in the namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    pub(super) fn ip(&self, script: &str) -> anyhow::Result<()> {
        batch("ip", Some(&self.name), script)
    }

    pub(super) fn tc(&self, script: &str) -> anyhow::Result<()> {
        batch("tc", Some(&self.name), script)
    }
}

impl ClientHost for Host {
    fn enter(&self) -> anyhow::Result<()> {
        let file = File::open(format!("/run/netns/{}", self.name)).context("the namespace is gone")?;
        // SAFETY: setns(2) with a descriptor that we own; it changes this thread only.
        let rc = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
        ensure!(rc == 0, "setns: {}", std::io::Error::last_os_error());
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = run("ip", &["netns", "del", &self.name]);
    }
}

/// Removes the namespaces of owners that no longer live, such as one that was killed; devices, routes, queues and filters go with them.
pub fn remove_stale() {
    let Ok(folder) = std::fs::read_dir("/run/netns") else { return };
    for name in folder.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1));
        if owner.is_some_and(|pid| !std::path::Path::new("/proc").join(pid).exists()) {
            let _ = run("ip", &["netns", "del", &name]);
        }
    }
}

/// A name for a device in our own namespace, of at most 15 characters.
pub(super) fn device_name() -> String {
    format!("tf{}n{}", id(), SERIAL.fetch_add(1, Ordering::Relaxed))
}
