//! Fixed delay without the kernel's help: a thread carries packets between two TUN devices, each after the delay, in order.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use crate::realtime;

/// Packets read from a device before the other direction gets its turn.
const TURN: usize = 64;

/// Packets on their way in one direction; more are lost. At 100 Mbit/s these are more than a second of full packets.
const IN_FLIGHT: usize = 16_384;

/// Makes a TUN device in the calling thread's namespace. It goes when the file is closed.
pub(super) fn open_tun(name: &str) -> anyhow::Result<File> {
    let open = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun");
    let file = open.context("cannot open /dev/net/tun, which links with delay need")?;
    // SAFETY: all zeros is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    ensure!(name.len() < request.ifr_name.len(), "{name} is too long for a device");
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *slot = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF takes an ifreq, which outlives the call.
    let rc = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &request) };
    ensure!(rc == 0, "cannot make TUN device {name}: {}", std::io::Error::last_os_error());
    Ok(file)
}

/// The thread; ends when dropped.
pub(super) struct Relay {
    delay_ns: Arc<AtomicU64>,
    stop: File,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    pub(super) fn start(near: File, far: File, delay: Duration) -> anyhow::Result<Self> {
        // SAFETY: eventfd(2) has no preconditions.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        ensure!(fd >= 0, "eventfd: {}", std::io::Error::last_os_error());
        // SAFETY: the descriptor is new and nobody else's.
        let stop = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        let delay_ns = Arc::new(AtomicU64::new(delay.as_nanos() as u64));
        let lanes = [Lane::new(near.try_clone()?, far.try_clone()?), Lane::new(far, near)];
        let (told, stopped) = (delay_ns.clone(), stop.try_clone()?);
        let thread = std::thread::Builder::new().name("delay".to_owned()).spawn(move || {
            realtime::prefer_this_thread();
            carry(lanes, &stopped, &told);
        })?;
        Ok(Self { delay_ns, stop, thread: Some(thread) })
    }

    /// Packets that enter from now on take so long; none overtakes another.
    pub(super) fn set_delay(&self, delay: Duration) {
        self.delay_ns.store(delay.as_nanos() as u64, Ordering::Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.stop.write_all(&1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One direction.
struct Lane {
    from: File,
    to: File,
    /// With the moment at which each is due, in order of both.
    packets: VecDeque<(Instant, Vec<u8>)>,
}

impl Lane {
    fn new(from: File, to: File) -> Self {
        Self { from, to, packets: VecDeque::new() }
    }

    /// Takes what has come. `false` when the device is gone.
    fn take(&mut self, delay: Duration, spare: &mut Vec<Vec<u8>>) -> bool {
        for _ in 0..TURN {
            let mut packet = spare.pop().unwrap_or_default();
            packet.resize(2048, 0);
            match self.from.read(&mut packet) {
                Ok(length) => {
                    packet.truncate(length);
                    let due = Instant::now() + delay;
                    let due = self.packets.back().map_or(due, |(last, _)| due.max(*last));
                    if self.packets.len() < IN_FLIGHT {
                        self.packets.push_back((due, packet));
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => break,
                Err(_) => return false,
            }
        }
        true
    }

    /// Delivers what is due.
    fn give(&mut self, spare: &mut Vec<Vec<u8>>) {
        while self.packets.front().is_some_and(|(due, _)| *due <= Instant::now()) {
            if let Some((_, packet)) = self.packets.pop_front() {
                // A device that is down loses packets, as any.
                let _ = self.to.write(&packet);
                spare.push(packet);
            }
        }
    }
}

fn carry(mut lanes: [Lane; 2], stop: &File, delay_ns: &AtomicU64) {
    let mut spare = Vec::new();
    loop {
        for lane in &mut lanes {
            lane.give(&mut spare);
        }
        let next = lanes.iter().filter_map(|lane| lane.packets.front().map(|(due, _)| *due)).min();
        let wait = next.map_or(Duration::from_secs(3600), |due| due.saturating_duration_since(Instant::now()));
        let Some(ready) = poll([&lanes[0].from, &lanes[1].from, stop], wait) else { return };
        if ready[2] {
            return;
        }
        let delay = Duration::from_nanos(delay_ns.load(Ordering::Relaxed));
        for (lane, ready) in lanes.iter_mut().zip(ready) {
            if ready && !lane.take(delay, &mut spare) {
                return;
            }
        }
    }
}

/// Waits until one of the files can be read or the time is over, to the microsecond; `None` when that is impossible.
fn poll<const N: usize>(files: [&File; N], wait: Duration) -> Option<[bool; N]> {
    let mut polled = files.map(|file| libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 });
    let timeout = libc::timespec { tv_sec: wait.as_secs() as libc::time_t, tv_nsec: wait.subsec_nanos().into() };
    // SAFETY: ppoll(2) with an array of N valid entries and a timeout that both outlive the call.
    let rc = unsafe { libc::ppoll(polled.as_mut_ptr(), N as libc::nfds_t, &timeout, std::ptr::null()) };
    if rc < 0 && std::io::Error::last_os_error().kind() != ErrorKind::Interrupted {
        return None;
    }
    Some(polled.map(|p| rc > 0 && p.revents != 0))
}
