//! What the hint server costs with many connections, measured: a probe that makes its looks up stands in for the kernel, the rest is real.
//!
//! `cargo run --release -p tokenflow-hint-server --example scale -- [CONNECTIONS] [ACTIVE] [REQUESTS_PER_S] [SECONDS]`
//! prints the processor time and memory of measuring alone, then the latency of `GET /hint` under load from a process of its own.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{self, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokenflow_hint_api::Source;
use tokenflow_hint_server::{
    poller,
    probe::{Identity, Look, Probe, ProbeError},
    publish::{App, Feed, router},
    tracker::Tracker,
};
use tokenflow_score::Measurement;
use tokio::{runtime::Handle, sync::Notify};

/// Connections in the order of their cookies; the first `active` stream 50 chunks of 220 bytes a second, one in ten of them is congested.
struct MadeUp {
    connections: u64,
    active: u64,
}

impl MadeUp {
    fn look(&self, at: Duration, cookie: u64) -> Look {
        let ms = at.as_millis() as u64;
        let identity = Identity {
            cookie,
            local: SocketAddr::from(([192, 0, 2, 1], 8000)),
            peer: SocketAddr::from(([198, 51, (cookie >> 16) as u8, 7], cookie as u16)),
        };
        let idle = Measurement { at, srtt_us: 900, min_rtt_us: 600, bytes_acked: 4000, data_segs_out: 20, ..Measurement::default() };
        let measurement = match cookie {
            _ if cookie >= self.active => idle,
            _ if cookie.is_multiple_of(10) => Measurement {
                srtt_us: 700_000 + (ms * 7 + cookie) as u32 % 200_000,
                bytes_acked: ms * 3,
                data_segs_out: ms / 70,
                undelivered_bytes: 5000 + (ms + cookie) % 900,
                delivery_rate_bytes_per_s: 20_000,
                app_limited: Some(false),
                ..idle
            },
            _ => Measurement { srtt_us: 900 + (ms + cookie) as u32 % 50, bytes_acked: ms * 11, data_segs_out: ms / 20, ..idle },
        };
        Look { identity, measurement, source: Source::SockDiag }
    }
}

impl Probe for MadeUp {
    fn source(&self) -> Source {
        Source::SockDiag
    }

    fn looks(&mut self, at: Duration, looks: &mut Vec<Look>) -> Result<(), ProbeError> {
        looks.extend((0..self.connections).map(|cookie| self.look(at, cookie)));
        Ok(())
    }

    fn looks_at(&mut self, at: Duration, which: &[Identity], looks: &mut Vec<Look>) -> Result<(), ProbeError> {
        looks.extend(which.iter().map(|identity| self.look(at, identity.cookie)));
        Ok(())
    }
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [mode, address, rate, seconds] = &arguments[..]
        && mode == "load"
    {
        return load(address.parse().unwrap(), rate.parse().unwrap(), seconds.parse().unwrap());
    }
    let number = |index: usize, default: u64| arguments.get(index).map_or(default, |text| text.parse().expect("a number"));
    let (connections, active, rate, seconds) = (number(0, 20_000), number(1, 1000), number(2, 5000), number(3, 8));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async move {
        let feed = Arc::new(Feed::new(Tracker::new(Source::SockDiag, 220.0)));
        let probe = Box::new(MadeUp { connections, active });
        let _alive = poller::spawn(Handle::current(), probe, Arc::clone(&feed), Arc::new(Notify::new())).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(
            async move { axum::serve(listener, router(App::new(feed)).into_make_service_with_connect_info::<SocketAddr>()).await },
        );
        // One engine follows the stream, as in life.
        thread::spawn(move || follow(address));
        tokio::time::sleep(Duration::from_secs(2)).await;

        let (before, begun) = (processor_time(), Instant::now());
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let share = (processor_time() - before).as_secs_f64() / begun.elapsed().as_secs_f64();
        println!(
            "{connections} connections, {active} active: {:.1} % of a core, {} MB resident (with the reader)",
            share * 100.0,
            resident_mb()
        );

        let child = Command::new(env::current_exe().unwrap())
            .args(["load", &address.to_string(), &rate.to_string(), &seconds.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = tokio::task::spawn_blocking(|| child.wait_with_output()).await.unwrap().unwrap();
        print!("{}", String::from_utf8_lossy(&output.stdout));
        println!("{} MB resident after the load", resident_mb());
    });
    // Measuring goes on for ever.
    process::exit(0);
}

fn follow(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /hint/stream HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut buffer = vec![0; 1 << 16];
    while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
}

/// User and system time of this process.
fn processor_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    // USER_HZ is 100 on every architecture that this runs on.
    Duration::from_millis(ticks * 10)
}

fn resident_mb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

/// Open loop: requests are due at fixed times, and latency counts from when one was due, so that a stall shows in all that waited behind it.
fn load(address: SocketAddr, rate: u64, seconds: u64) {
    const CONNECTIONS: u64 = 4;
    let workers: Vec<_> = (0..CONNECTIONS)
        .map(|worker| {
            thread::spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.set_nodelay(true).unwrap();
                let mut answers = BufReader::new(stream.try_clone().unwrap());
                let (gap, begun) = (Duration::from_secs_f64(CONNECTIONS as f64 / rate as f64), Instant::now());
                let mut latencies = Vec::new();
                for request in 0..rate * seconds / CONNECTIONS {
                    let due = begun + gap.mul_f64(request as f64 + worker as f64 / CONNECTIONS as f64);
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    stream.write_all(b"GET /hint HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
                    let (mut length, mut line) = (0, String::new());
                    loop {
                        line.clear();
                        answers.read_line(&mut line).unwrap();
                        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                            length = value.trim().parse().unwrap();
                        }
                        if line == "\r\n" {
                            break;
                        }
                    }
                    let mut body = vec![0; length];
                    answers.read_exact(&mut body).unwrap();
                    assert!(body.starts_with(b"{\"health_factor\":"), "not a hint");
                    latencies.push(due.elapsed());
                }
                latencies
            })
        })
        .collect();
    let begun = Instant::now();
    let mut latencies: Vec<Duration> = workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
    let rate = latencies.len() as f64 / begun.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let quantile = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize].as_secs_f64() * 1e3;
    println!(
        "GET /hint at {rate:.0}/s: p50 {:.3} ms, p99 {:.3} ms, p99.9 {:.3} ms, most {:.3} ms",
        quantile(0.5),
        quantile(0.99),
        quantile(0.999),
        quantile(1.0)
    );
}
