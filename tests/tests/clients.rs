//! The testbed's own clients and proxy, at the real engine: what they do to a stream is known, so that the rest is the engine's.

use std::time::{Duration, Instant};

use tokenflow_tests::{
    daemon, http,
    proxy::Proxy,
    stream::{StreamOptions, TokenStream},
};

#[test]
fn a_proxy_passes_a_stream_on_and_a_hang_up_too() {
    // So slow that the long stream does not end by itself.
    let engine = daemon::engine(&["--max-stream-rate", "20"]).unwrap();
    let address = http::address(&engine.url).unwrap();
    let proxy = Proxy::start(address).unwrap();
    let through = (std::net::Ipv4Addr::LOCALHOST, proxy.address.port()).into();
    let ask = |server| TokenStream::start(server, None, StreamOptions::new("through a proxy", 60)).finish().unwrap();
    assert_eq!(ask(through), ask(address));
    assert_eq!(http::get_text(&format!("http://{through}"), "/health").unwrap(), http::get_text(&engine.url, "/health").unwrap());

    let long = TokenStream::start(through, None, StreamOptions::new("a client that leaves", 900));
    let running = || {
        let metrics = http::get_text(&engine.url, "/metrics").unwrap();
        let line = metrics.lines().find(|l| l.starts_with("vllm:num_requests_running")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let wait = |wanted: f64| {
        let began = Instant::now();
        while running() != wanted {
            assert!(began.elapsed() < Duration::from_secs(30), "{} requests run", running());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wait(1.0);
    drop(long);
    wait(0.0);
}

#[test]
fn a_slow_reader_reads_slowly() {
    let engine = daemon::engine(&["--no-coalesce-events"]).unwrap();
    let address = http::address(&engine.url).unwrap();
    let read = |options| {
        let stream = TokenStream::start(address, None, options);
        let began = stream.started_at;
        let text = stream.finish().unwrap();
        (text, began.elapsed())
    };
    let options = StreamOptions::new("slowly", 60);
    let (expected, _) = read(options.clone());
    let (text, took) = read(options.slowly(8_000));
    assert_eq!(text, expected);
    // Sixty events of more than two hundred bytes each.
    assert!(took > Duration::from_millis(1500), "{took:?}");
}
