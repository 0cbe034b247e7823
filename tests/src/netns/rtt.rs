//! The round trip through a bottleneck, measured by small UDP packets that wait in the same queue as the streams.

use std::{
    collections::HashMap,
    io::ErrorKind,
    net::{Ipv4Addr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::Host;
use crate::realtime;

/// Time between probes where the link is fast.
const INTERVAL: Duration = Duration::from_millis(50);

/// A probe on the wire: Ethernet, IPv4, UDP, its number.
const PROBE_BYTES: u64 = 14 + 20 + 8 + 8;

/// Share of a link's rate that probes take at most.
const SHARE: f64 = 0.02;

/// A probe that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RttSample {
    pub sent_at: Instant,
    pub rtt: Duration,
}

/// Sends probes from our side to a client host until it is dropped.
pub struct RttProbe {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    samples: Mutex<Vec<RttSample>>,
    under_way: Mutex<HashMap<u64, Instant>>,
    stop: AtomicBool,
}

impl RttProbe {
    /// Between our address `near` and the client's, at 20 Hz, or fewer where the link's `rate` (bit/s) is so low that more would matter.
    pub(super) fn start(near: Ipv4Addr, client: &Host, far: Ipv4Addr, rate: Option<u64>) -> anyhow::Result<Self> {
        let interval =
            rate.map_or(INTERVAL, |rate| INTERVAL.max(Duration::from_secs_f64(PROBE_BYTES as f64 * 8.0 / (SHARE * rate as f64))));
        let echo = client.within(|| Ok(UdpSocket::bind((far, 0))?))?;
        echo.set_read_timeout(Some(INTERVAL))?;
        let socket = UdpSocket::bind((near, 0))?;
        socket.connect(echo.local_addr()?)?;
        let shared = Arc::new(Shared::default());
        let threads = vec![
            spawn("echo", shared.clone(), move |shared| answer(&echo, shared))?,
            spawn("probe", shared.clone(), move |shared| ask(&socket, interval, shared))?,
        ];
        Ok(Self { shared, threads })
    }

    /// All that have come back, in order of their return.
    pub fn samples(&self) -> Vec<RttSample> {
        lock(&self.shared.samples).clone()
    }

    /// When those were sent that have not come back: lost, or still waiting in a queue.
    pub fn unanswered(&self) -> Vec<Instant> {
        let mut sent: Vec<_> = lock(&self.shared.under_way).values().copied().collect();
        sent.sort();
        sent
    }
}

impl Drop for RttProbe {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn spawn(name: &str, shared: Arc<Shared>, act: impl FnOnce(&Shared) + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        realtime::prefer_this_thread();
        act(&shared);
    })
}

fn answer(socket: &UdpSocket, shared: &Shared) {
    let mut probe = [0; 64];
    while !shared.stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut probe) {
            let _ = socket.send_to(&probe[..length], from);
        }
    }
}

fn ask(socket: &UdpSocket, interval: Duration, shared: &Shared) {
    let mut number = 0u64;
    let mut next = Instant::now();
    while !shared.stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now >= next {
            lock(&shared.under_way).insert(number, now);
            // A send that the link's death refuses is a probe lost.
            let _ = socket.send(&number.to_ne_bytes());
            number += 1;
            next += interval;
            continue;
        }
        // At most the ordinary interval, so that the end is seen soon.
        let _ = socket.set_read_timeout(Some((next - now).min(INTERVAL)));
        let mut probe = [0; 8];
        match socket.recv(&mut probe) {
            Ok(8) => {
                let back = Instant::now();
                if let Some(sent_at) = lock(&shared.under_way).remove(&u64::from_ne_bytes(probe)) {
                    lock(&shared.samples).push(RttSample { sent_at, rtt: back - sent_at });
                }
            }
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
