//! The binary as operators run it.

#[path = "common/pair.rs"]
mod pair;
#[path = "common/server.rs"]
mod server;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixListener},
    process::Stdio,
    time::{Duration, Instant},
};

use pair::{Pair, until};
use serde_json::Value;
use server::Server;
use tokenflow_hint_api::{HintEvent, HintUrl, Source, Status, Subscriber};

fn start_for(pair: &Pair, args: &[&str]) -> Server {
    let port = pair.port().to_string();
    Server::start(&[&["--listen", "127.0.0.1:0", "--watch-port", &port, "--probe", "sock-diag"], args].concat())
}

fn json(server: &Server, path: &str) -> (u16, Value) {
    let (status, body) = server.get(path);
    (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}")))
}

/// Reads the next event of a stream; comments are passed over.
fn next_event(stream: &mut impl BufRead) -> (String, HintEvent) {
    let (mut name, mut line) = (String::new(), String::new());
    loop {
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0, "the stream ended");
        if let Some(event) = line.strip_prefix("event:") {
            name = event.trim().to_owned();
        } else if let Some(data) = line.strip_prefix("data:") {
            return (name, serde_json::from_str(data.trim()).unwrap());
        }
    }
}

#[test]
fn answers_for_all_and_for_one() {
    let pair = Pair::new("127.0.0.1:0");
    let server = start_for(&pair, &[]);
    assert_eq!(server.ready_line.trim(), format!("tokenflow-hint-server listening on http://{} (probe: sock_diag)", server.address));

    let (status, hint) = json(&server, "/hint");
    assert_eq!(status, 200);
    for field in ["health_factor", "health", "token_rate", "metrics", "source", "connections", "age_ms", "seq"] {
        assert!(hint.get(field).is_some(), "{field} is missing in {hint}");
    }
    assert_eq!((hint["health_factor"].as_f64(), hint["source"].as_str()), (Some(1.0), Some("sock_diag")));

    let connections = until(|| Some(json(&server, "/connections").1).filter(|all| !all.as_array().unwrap().is_empty()));
    assert_eq!(connections[0]["cookie"].as_u64(), Some(pair.cookie()));
    assert_eq!(connections[0]["peer"].as_str(), Some(&*pair.peer().to_string()));
    assert_eq!(connections[0]["terms"]["queue"].as_f64(), Some(1.0));

    for path in [format!("/hint?peer={}", pair.peer()), format!("/hint?cookie={}", pair.cookie())] {
        let (status, hint) = json(&server, &path);
        assert_eq!((status, hint["connections"].as_u64()), (200, Some(1)), "{path}");
        assert!(hint["metrics"]["rtt"].as_u64().unwrap() > 0);
    }
    for (path, status, says) in [
        ("/hint?peer=192.0.2.9:1", 404, "192.0.2.9:1"),
        ("/hint?cookie=18446744073709551615", 404, "18446744073709551615"),
        ("/hint?peer=nobody", 400, "nobody"),
        ("/hint?cookie=-1", 400, "-1"),
        ("/hint?cookie=1&peer=192.0.2.9:1", 400, "both"),
        ("/nowhere", 404, "/hint"),
    ] {
        let (found, body) = json(&server, path);
        assert_eq!(found, status, "{path}");
        assert!(body["error"]["message"].as_str().unwrap().contains(says), "{path}: {body}");
    }

    let mut refused = server.send("POST", "/hint");
    let mut answer = String::new();
    refused.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 405 ") && head.to_lowercase().contains("\r\nallow: get"), "{head}");
    assert!(serde_json::from_str::<Value>(body).unwrap()["error"]["message"].is_string(), "{body}");

    assert_eq!(server.get("/healthz"), (200, "ok\n".to_owned()));
    let (_, metrics) = server.get("/metrics");
    assert!(metrics.contains("tokenflow_hint_health_factor 1\n") && metrics.contains("tokenflow_hint_probe_info{source=\"sock_diag\"} 1"));
    assert!(metrics.contains("tokenflow_hint_connections{state=\"tracked\"} 1\n"), "{metrics}");
    for reason in ["map_full", "callbacks_refused", "ring_full"] {
        assert!(metrics.contains(&format!("tokenflow_hint_kernel_failures_total{{reason=\"{reason}\"}} 0\n")), "{metrics}");
    }
    let (status, page) = server.get("/");
    assert!(status == 200 && page.contains("/dashboard.js") && !page.contains("://"), "it asks nobody else for anything");
}

#[test]
fn the_stream_begins_with_everything_and_goes_on_with_changes() {
    let pair = Pair::new("127.0.0.1:0");
    let server = start_for(&pair, &[]);
    until(|| Some(()).filter(|()| server.get("/connections").1.len() > 2));
    let mut stream = BufReader::new(server.open("/hint/stream"));
    let (name, snapshot) = next_event(&mut stream);
    assert_eq!((name.as_str(), snapshot.changed.len(), snapshot.changed[0].cookie), ("snapshot", 1, pair.cookie()));

    // A reader that does not read: a backlog that stands.
    pair.fill();
    let begun = Instant::now();
    let mut events = 0;
    let sick = loop {
        let (name, change) = next_event(&mut stream);
        events += 1;
        assert_eq!(name, "change");
        assert!(begun.elapsed() < Duration::from_secs(10));
        if change.changed.iter().any(|connection| connection.health < 0.5) {
            break change;
        }
    };
    assert!(sick.changed[0].undelivered_bytes > 0 && sick.changed[0].token_rate.is_some());
    assert!(events <= begun.elapsed().as_millis() / 45 + 2, "{events} events in {:?}", begun.elapsed());

    let cookie = pair.cookie();
    drop(pair);
    while !next_event(&mut stream).1.removed.contains(&cookie) {}
}

#[test]
fn a_silent_stream_is_kept_alive() {
    let pair = Pair::new("127.0.0.1:0");
    let server = start_for(&pair, &[]);
    let mut stream = BufReader::new(server.open("/hint/stream"));
    let mut line = String::new();
    while !line.starts_with(": keep-alive") {
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_survives_the_servers_death_and_return() {
    let pair = Pair::new("127.0.0.1:0");
    let server = start_for(&pair, &[]);
    let (address, port) = (server.address.to_string(), pair.port().to_string());
    let subscriber = Subscriber::spawn(format!("http://{address}/hint").parse().unwrap());
    let known = || subscriber.snapshot().filter(|state| state.connections.contains_key(&pair.cookie()));
    assert_eq!(until(known).hint.source, Source::SockDiag);
    assert_eq!(subscriber.status(), Status::Connected);

    drop(server);
    until(|| (subscriber.status() == Status::Unreachable && subscriber.snapshot().is_none()).then_some(()));

    let _server = Server::start(&["--listen", &address, "--watch-port", &port, "--probe", "sock-diag"]);
    until(known);
    assert_eq!(subscriber.status(), Status::Connected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_is_served_on_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hint.sock");
    // The file of a server that was killed.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());

    let pair = Pair::new("127.0.0.1:0");
    let mut server = start_for(&pair, &["--socket", path.to_str().unwrap()]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let subscriber = Subscriber::spawn(HintUrl::Unix(path.clone()));
    until(|| subscriber.snapshot().filter(|state| state.connections.contains_key(&pair.cookie())));

    let second =
        Server::command(&["--listen", "127.0.0.1:0", "--probe", "sock-diag", "--socket", path.to_str().unwrap()]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8(second.stderr).unwrap().contains("another process listens"));

    server.signal("TERM");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    assert!(!path.exists());

    fs::write(&path, "precious").unwrap();
    let third = Server::command(&["--listen", "127.0.0.1:0", "--probe", "sock-diag", "--socket", path.to_str().unwrap()]).output().unwrap();
    assert_eq!(third.status.code(), Some(1));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn signals_end_it_cleanly_though_streams_are_open() {
    for signal in ["TERM", "INT"] {
        let pair = Pair::new("127.0.0.1:0");
        let mut server = start_for(&pair, &[]);
        let mut stream = BufReader::new(server.open("/hint/stream"));
        next_event(&mut stream);
        let begun = Instant::now();
        server.signal(signal);
        assert_eq!(server.child.wait().unwrap().code(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(5));
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
    }
}

#[test]
fn an_address_in_use_is_one_sentence() {
    let pair = Pair::new("127.0.0.1:0");
    let server = start_for(&pair, &[]);
    let second = Server::command(&["--listen", &server.address.to_string(), "--probe", "sock-diag"]).output().unwrap();
    let says = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(says.contains(&format!("cannot listen on {}", server.address)) && says.trim().lines().count() == 1, "{says}");
}

#[test]
fn no_thread_keeps_a_capability() {
    let pair = Pair::new("127.0.0.1:0");
    let port = pair.port().to_string();
    // The probe that needs privilege, where it works.
    let server = Server::start(&["--listen", "127.0.0.1:0", "--watch-port", &port]);
    let may_empty_the_bounding_set = caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SETPCAP).unwrap();
    let mut threads = 0;
    for task in fs::read_dir(format!("/proc/{}/task", server.child.id())).unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let value = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t")).unwrap();
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(value(set), "0000000000000000", "{set}");
        }
        assert_eq!(value("NoNewPrivs"), "1");
        if may_empty_the_bounding_set {
            assert_eq!(value("CapBnd"), "0000000000000000");
        }
        threads += 1;
    }
    assert!(threads > 1, "{threads} threads");
    // And it still measures.
    until(|| Some(()).filter(|()| server.get("/connections").1.contains(&pair.cookie().to_string())));
}

#[test]
fn with_privilege_the_kernel_program_measures_too() {
    let able = |capability| caps::has_cap(None, caps::CapSet::Effective, capability).unwrap();
    let needed = [caps::Capability::CAP_BPF, caps::Capability::CAP_NET_ADMIN, caps::Capability::CAP_PERFMON];
    if !needed.into_iter().all(able) {
        eprintln!("skipped: needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON");
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let before = Pair::through(&listener, address);
    let mut server = Server::start(&["--listen", "127.0.0.1:0", "--watch-port", &address.port().to_string(), "--bpf-stats"]);
    assert!(server.ready_line.trim().ends_with("(probe: ebpf)"), "{}", server.ready_line);
    let after = Pair::through(&listener, address);

    let source = |pair: &Pair| {
        let (status, hint) = json(&server, &format!("/hint?cookie={}", pair.cookie()));
        (status == 200).then(|| hint["source"].as_str().unwrap().to_owned())
    };
    // A look that falls between the two reads of a connection's first instant knows it from diagnostics alone.
    until(|| source(&after).filter(|source| source == "ebpf"));
    assert_eq!(until(|| source(&before)), "sock_diag", "established before the program was there");
    assert!(server.get("/metrics").1.contains("tokenflow_hint_events_total{kind=\"established\"} 1\n"));
    if able(caps::Capability::CAP_SYS_ADMIN) {
        until(|| {
            let metrics = server.get("/metrics").1;
            let value = |name: &str| metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok()).unwrap();
            (value("tokenflow_hint_kernel_program_runs_total ") > 0.0 && value("tokenflow_hint_kernel_program_seconds_total ") > 0.0)
                .then_some(())
        });
    }
    server.signal("TERM");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_folder_that_is_no_cgroup_is_refused_with_any_probe() {
    for probe in ["auto", "ebpf", "sock-diag"] {
        let output = Server::command(&["--listen", "127.0.0.1:0", "--cgroup", "/proc", "--probe", probe]).output().unwrap();
        let says = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{probe}");
        assert!(says.contains("--cgroup") && says.contains("/proc") && says.trim().lines().count() == 1, "{probe}: {says}");
    }
}

#[test]
fn a_reader_that_stops_reading_is_cut_loose_at_the_end() {
    let pair = Pair::new("127.0.0.1:0");
    let mut server = start_for(&pair, &[]);
    let mut stuck = std::net::TcpStream::connect(server.address).unwrap();
    stuck.write_all(b"GET /hint HTTP/1.1\r\nhost: localhost\r\n").unwrap();
    server.signal("TERM");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

#[test]
fn nobody_needs_to_read_its_output() {
    let mut child =
        Server::command(&["--listen", "127.0.0.1:0", "--probe", "sock-diag"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}
