//! Two network namespaces joined by a veth pair, so that a link may be throttled without touching the host's.

use std::{
    fs::File,
    os::fd::AsRawFd,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

pub struct Link {
    names: [String; 2],
}

/// Addresses of the two ends.
pub const ADDRESSES: [&str; 2] = ["10.99.0.1", "10.99.0.2"];

const DEVICE: &str = "eth0";

impl Link {
    /// `None`, with the reason printed, where there are no tools for it.
    pub fn try_new() -> Option<Self> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        for tool in ["ip", "tc"] {
            if Command::new(tool).arg("-V").output().is_err() {
                eprintln!("skipped: `{tool}` is not installed (package iproute2)");
                return None;
            }
        }
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let link = Self { names: [0, 1].map(|side| format!("tf-{}-{serial}-{side}", std::process::id())) };
        let [a, b] = &link.names;
        run(&["ip", "netns", "add", a]);
        run(&["ip", "netns", "add", b]);
        run(&["ip", "link", "add", DEVICE, "netns", a, "type", "veth", "peer", "name", DEVICE, "netns", b]);
        for (name, address) in link.names.iter().zip(ADDRESSES) {
            run(&["ip", "-n", name, "addr", "add", &format!("{address}/24"), "dev", DEVICE]);
            run(&["ip", "-n", name, "link", "set", DEVICE, "up"]);
        }
        Some(link)
    }

    /// Narrows what side 0 sends; packets beyond `limit_bytes` of queue are dropped.
    pub fn throttle(&self, rate: &str, limit_bytes: &str) {
        run(&[
            "tc",
            "-n",
            &self.names[0],
            "qdisc",
            "replace",
            "dev",
            DEVICE,
            "root",
            "tbf",
            "rate",
            rate,
            "burst",
            "4k",
            "limit",
            limit_bytes,
        ]);
    }

    /// Lets nothing of what side 1 sends through any more.
    pub fn silence_side_1(&self) {
        run(&["ip", "-n", &self.names[1], "route", "add", "blackhole", &format!("{}/32", ADDRESSES[0])]);
    }

    /// Runs in one side's namespace; sockets made there stay there.
    pub fn on_side<T: Send>(&self, side: usize, act: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{}", self.names[side])).unwrap();
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                // SAFETY: moves only this thread, which ends with the closure.
                assert_eq!(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
                act()
            });
            inside.join().unwrap()
        })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for name in &self.names {
            _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

fn run(command: &[&str]) {
    let output = Command::new(command[0]).args(&command[1..]).output().unwrap();
    assert!(output.status.success(), "{}: {}", command.join(" "), String::from_utf8_lossy(&output.stderr));
}
