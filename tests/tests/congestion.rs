//! The control plane on a real link: the real kernel program where it can be attached, real TCP through network namespaces.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokenflow_tests::{
    daemon::{self, Daemon},
    http,
    netns::Namespace,
    proxy::Proxy,
    stream::{StreamOptions, TokenStream},
};

/// 220-byte chunks at 50 a second want 88 kbit/s, and the link carries 32: queues fill within seconds.
const STREAM_RATE: &str = "50";
const LINK: &str = "32kbit";
const QUEUE: &str = "60k";

/// One test at a time: they measure a shared machine.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

struct Testbed {
    engine: Daemon,
    hint_server: Option<Daemon>,
    port: u16,
}

impl Testbed {
    /// With every token in an event of its own, so that rates are those of bytes.
    fn start(flags: &[&str], probe: Option<&str>) -> Self {
        Self::serving(&[flags, &["--no-coalesce-events"]].concat(), probe)
    }

    fn serving(flags: &[&str], probe: Option<&str>) -> Self {
        let port = daemon::free_port(0).unwrap();
        let port_text = port.to_string();
        let hint_server = probe.map(|probe| daemon::hint_server(&["--watch-port", &port_text, "--probe", probe]).unwrap());
        let hint_url = hint_server.as_ref().map_or("none", |server| &server.url).to_owned();
        let mut all = vec!["--host", "0.0.0.0", "--port", &port_text, "--hint-url", &hint_url];
        all.extend(flags);
        let engine = daemon::engine(&all).unwrap();
        Self { engine, hint_server, port }
    }

    fn stream(&self, namespace: &Arc<Namespace>, tokens: usize) -> TokenStream {
        TokenStream::start((namespace.host, self.port).into(), Some(namespace.clone()), StreamOptions::new("fn main", tokens))
    }

    /// Health of the stream's connection as the hint server has it.
    fn health(&self, stream: &TokenStream) -> f64 {
        self.row(stream)["health"].as_f64().unwrap()
    }

    fn row(&self, stream: &TokenStream) -> Value {
        let url = &self.hint_server.as_ref().unwrap().url;
        let connections = http::get_json(url, "/connections").unwrap();
        let local = stream.local().expect("the stream is connected").to_string();
        let mine = |c: &&Value| c["peer"].as_str() == Some(&local);
        assert!(stream.is_running(), "the stream ended too early");
        connections.as_array().unwrap().iter().find(mine).expect("the hint server tracks the connection").clone()
    }
}

fn skipped() -> bool {
    match Namespace::unavailable() {
        Some(reason) => {
            assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: {reason}");
            eprintln!("skipped: {reason}");
            true
        }
        None => false,
    }
}

fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> Option<Duration> {
    let began = Instant::now();
    while began.elapsed() < limit {
        if condition() {
            return Some(began.elapsed());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    None
}

fn throttled_link_shows_and_recovers(probe: &str) {
    let _turn = TURN.lock();
    let bed = Testbed::start(&["--max-stream-rate", STREAM_RATE], Some(probe));
    let source = http::get_json(&bed.hint_server.as_ref().unwrap().url, "/hint").unwrap()["source"].clone();
    assert_eq!(source, probe.replace('-', "_"), "{}", bed.hint_server.as_ref().unwrap().log());
    let (near, far) = (Arc::new(Namespace::new().unwrap()), Arc::new(Namespace::new().unwrap()));
    let (healthy, slow) = (bed.stream(&near, 900), bed.stream(&far, 900));
    wait_until(Duration::from_secs(30), || healthy.arrivals().len() > 50 && slow.arrivals().len() > 50).expect("both stream");
    assert!(bed.health(&slow) > 0.9, "a free link is healthy");
    assert_eq!(bed.row(&slow)["source"], probe.replace('-', "_"), "the probe itself has seen the connection");

    let least_healthy = std::cell::Cell::new(1.0f64);
    let watch = || least_healthy.set(least_healthy.get().min(bed.health(&healthy)));
    far.throttle(LINK, QUEUE).unwrap();
    let fell = wait_until(Duration::from_secs(2), || {
        watch();
        bed.health(&slow) < 0.5
    });
    assert!(fell.is_some(), "2 s after throttling, health is {}", bed.health(&slow));
    wait_until(Duration::from_secs(3), || {
        watch();
        false
    });
    assert!(slow.recent_rate(Duration::from_secs(2)) < 30.0, "the rate follows the link");

    far.free().unwrap();
    let rose = wait_until(Duration::from_secs(5), || {
        watch();
        bed.health(&slow) > 0.9
    });
    assert!(rose.is_some(), "5 s after freeing, health is {}", bed.health(&slow));
    assert!(least_healthy.get() >= 0.9, "the healthy stream beside it fell to {}", least_healthy.get());
    eprintln!("{probe}: below 0.5 after {fell:?}, above 0.9 after {rose:?}; healthy beside it never below {:.3}", least_healthy.get());
}

#[test]
fn the_kernel_program_sees_a_throttled_link() {
    if !skipped() {
        throttled_link_shows_and_recovers("ebpf");
    }
}

#[test]
fn socket_diagnostics_alone_see_a_throttled_link() {
    if !skipped() {
        throttled_link_shows_and_recovers("sock-diag");
    }
}

/// Tokens/s of a healthy stream while eight others share a throttled link.
fn under_congestion(pacing: &str, probe: Option<&str>) -> f64 {
    let bed = Testbed::start(&["--pacing", pacing, "--threads", "1"], probe);
    let (near, far) = (Arc::new(Namespace::new().unwrap()), Arc::new(Namespace::new().unwrap()));
    far.throttle(LINK, QUEUE).unwrap();
    let slow: Vec<_> = (0..8).map(|_| bed.stream(&far, 900)).collect();
    let healthy = bed.stream(&near, 900);
    wait_until(Duration::from_secs(30), || healthy.arrivals().len() > 20).expect("the healthy stream runs");
    std::thread::sleep(Duration::from_millis(200));
    let began = Instant::now();
    wait_until(Duration::from_secs(120), || !healthy.is_running()).expect("the healthy stream ends");
    let arrivals = healthy.arrivals();
    let last = arrivals.last().unwrap().at;
    let from = arrivals.iter().map(|a| a.at).find(|at| *at >= began).unwrap_or(arrivals[20].at);
    assert!(slow.iter().any(TokenStream::is_running), "the others stream meanwhile");
    healthy.rate(from, last)
}

#[test]
fn a_healthy_stream_gets_at_least_what_it_gets_without_pacing() {
    if skipped() {
        return;
    }
    let _turn = TURN.lock();
    // Alternating, so that a change of the machine's speed touches both.
    let runs: Vec<_> = (0..3).map(|_| (under_congestion("off", Some("ebpf")), under_congestion("per-connection", Some("ebpf")))).collect();
    let mut ratios: Vec<_> = runs.iter().map(|(off, paced)| paced / off).collect();
    ratios.sort_by(f64::total_cmp);
    eprintln!("healthy stream, tokens/s (off, per-connection): {runs:?}; ratios {ratios:.2?}");
    // A tenth of tolerance for a noisy machine: equality is what is claimed, not a gain.
    assert!(ratios[1] >= 0.9, "{runs:?}");
}

/// Has a link narrow to 8 kbit/s while a stream of 50 tokens/s goes over it, and waits until more than `enough` tokens/s arrive through it.
/// Tokens/s of the last seconds, 20 s after the link narrowed at the latest.
fn carried(flags: &[&str], enough: f64) -> f64 {
    let bed = Testbed::serving(&[&["--max-stream-rate", STREAM_RATE], flags].concat(), None);
    let far = Arc::new(Namespace::new().unwrap());
    let slow = bed.stream(&far, 900);
    wait_until(Duration::from_secs(30), || slow.arrivals().len() > 20).expect("it streams");
    far.throttle("8kbit", QUEUE).unwrap();
    let seconds = Duration::from_secs(4);
    // What was made before the link narrowed arrives first.
    std::thread::sleep(2 * seconds);
    let mut last = 0.0;
    wait_until(3 * seconds, || {
        last = slow.recent_rate(seconds);
        last > enough
    });
    last
}

#[test]
fn tokens_that_share_events_multiply_the_text_that_a_narrow_link_carries() {
    if skipped() {
        return;
    }
    let _turn = TURN.lock();
    // The link carries about four events a second.
    let alone = carried(&["--no-coalesce-events"], 8.0);
    let together = carried(&[], 2.0 * alone);
    eprintln!("8 kbit/s carry {alone:.1} tokens/s alone, {together:.1} together");
    assert!(alone > 0.5 && alone < 6.0, "{alone}");
    assert!(together > 2.0 * alone, "{together} against {alone}");
}

#[test]
fn the_engine_paces_by_its_own_sockets_when_no_hint_server_runs() {
    if skipped() {
        return;
    }
    let _turn = TURN.lock();
    let bed = Testbed::start(&["--max-stream-rate", STREAM_RATE], None);
    let (near, far) = (Arc::new(Namespace::new().unwrap()), Arc::new(Namespace::new().unwrap()));
    let (twin, slow) = (bed.stream(&near, 900), bed.stream(&far, 900));
    wait_until(Duration::from_secs(30), || slow.arrivals().len() > 50).expect("it streams");
    far.throttle(LINK, QUEUE).unwrap();
    // A chunk tells what was known when it was made: it arrives behind the seconds of output that the link had queued by then.
    let fell = wait_until(Duration::from_secs(30), || slow.arrivals().last().is_some_and(|a| a.health < 0.5 && a.paced));
    assert!(fell.is_some(), "{:?}", slow.arrivals().last());
    far.free().unwrap();
    let rose = wait_until(Duration::from_secs(8), || slow.arrivals().last().is_some_and(|a| a.health > 0.9));
    assert!(rose.is_some(), "{:?}", slow.arrivals().last());
    assert_eq!(slow.finish().unwrap(), twin.finish().unwrap(), "pacing changes when tokens come, not which");
}

#[test]
fn a_stream_behind_a_proxy_is_paced_by_the_clients_own_link() {
    if skipped() {
        return;
    }
    let _turn = TURN.lock();
    let port = daemon::free_port(0).unwrap();
    let proxy = Proxy::start(([127, 0, 0, 1], port).into()).unwrap();
    let watched = proxy.address.port().to_string();
    let hint_server = daemon::hint_server(&["--watch-port", &watched, "--probe", "sock-diag"]).unwrap();
    let port = port.to_string();
    let flags = ["--port", &port, "--hint-url", &hint_server.url, "--trusted-proxy", "127.0.0.0/8"];
    let _engine = daemon::engine(&[&flags[..], &["--max-stream-rate", STREAM_RATE, "--no-coalesce-events"]].concat()).unwrap();
    let far = Arc::new(Namespace::new().unwrap());
    let server = (far.host, proxy.address.port()).into();
    let slow = TokenStream::start(server, Some(far.clone()), StreamOptions::new("fn main", 900));
    wait_until(Duration::from_secs(30), || slow.arrivals().len() > 50).expect("it streams");
    assert!(slow.arrivals().last().unwrap().health > 0.9, "a free link is healthy");
    far.throttle(LINK, QUEUE).unwrap();
    // What was made before the link narrowed arrives first.
    let fell = wait_until(Duration::from_secs(15), || slow.arrivals().last().is_some_and(|a| a.health < 0.5 && a.paced));
    assert!(fell.is_some(), "{:?}", slow.arrivals().last());
    far.free().unwrap();
    let rose = wait_until(Duration::from_secs(30), || slow.arrivals().last().is_some_and(|a| a.health > 0.9));
    assert!(rose.is_some(), "{:?}", slow.arrivals().last());
}

#[test]
fn the_hint_server_may_die_and_return() {
    if skipped() {
        return;
    }
    let _turn = TURN.lock();
    let mut bed = Testbed::start(&["--max-stream-rate", STREAM_RATE], Some("auto"));
    let near = Arc::new(Namespace::new().unwrap());
    let stream = bed.stream(&near, 900);
    let engine_url = bed.engine.url.clone();
    let connected = |value: &str| {
        let text = http::get_text(&engine_url, "/metrics").unwrap_or_default();
        text.lines().any(|line| line.starts_with("tokenflow:hint_connected") && line.ends_with(value))
    };
    wait_until(Duration::from_secs(5), || connected(" 1")).expect("the engine subscribes");
    let address = bed.hint_server.as_ref().unwrap().url.trim_start_matches("http://").to_owned();
    drop(bed.hint_server.take());
    wait_until(Duration::from_secs(5), || connected(" 0")).expect("its death shows in the metrics");
    let before = stream.arrivals().len();
    std::thread::sleep(Duration::from_secs(1));
    assert!(stream.arrivals().len() > before + 20, "the stream goes on without hints");
    let _again = daemon::hint_server(&["--listen", &address, "--watch-port", &bed.port.to_string()]).unwrap();
    wait_until(Duration::from_secs(30), || connected(" 1")).expect("the engine subscribes again");
    let (_, reason) = stream.finish().unwrap();
    assert_eq!(reason.as_deref(), Some("length"));
}
