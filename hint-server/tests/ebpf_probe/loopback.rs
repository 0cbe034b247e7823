use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
};

use tokenflow_ebpf_common::{ConnectionStats, EventKind};
use tokenflow_hint_server::probe::ebpf::EbpfProbe;

use super::{Ground, eventually, socket, unlimited};

/// A connection over loopback, its server side first.
pub fn connect(listener: &TcpListener, host: &str) -> (TcpStream, TcpStream) {
    let port = listener.local_addr().unwrap().port();
    let client = TcpStream::connect((host, port)).unwrap();
    let (server, _) = listener.accept().unwrap();
    server.set_nodelay(true).unwrap();
    (server, client)
}

/// As a stream of tokens: small writes, each read before the next.
fn converse(server: &mut TcpStream, client: &mut TcpStream, chunks: usize) {
    let (sent, mut received) = ([b'x'; 220], [0; 220]);
    for _ in 0..chunks {
        server.write_all(&sent).unwrap();
        client.read_exact(&mut received).unwrap();
        client.write_all(b"ok").unwrap();
        server.read_exact(&mut received[..2]).unwrap();
    }
}

/// Whether the map's entry says what the socket says of itself, now that nothing moves.
fn agrees(stats: &ConnectionStats, server: &TcpStream) -> bool {
    let info = socket::tcp_info(server);
    stats.bytes_acked == info.tcpi_bytes_acked
        && stats.bytes_received == info.tcpi_bytes_received
        && stats.data_segs_out == info.tcpi_data_segs_out
        && stats.total_retrans == info.tcpi_total_retrans
        && stats.snd_cwnd == info.tcpi_snd_cwnd
        && stats.mss == info.tcpi_snd_mss
        && stats.min_rtt_us == info.tcpi_min_rtt
        && stats.srtt_us.abs_diff(info.tcpi_rtt) <= info.tcpi_rtt / 4 + 20
}

#[test]
fn the_map_says_what_the_sockets_say_of_themselves() {
    for (bound, host) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1"), ("[::]:0", "127.0.0.1")] {
        let Some(ground) = Ground::try_new() else { return };
        let listener = TcpListener::bind(bound).unwrap();
        let Some(mut probe) = ground.attach(unlimited(&[listener.local_addr().unwrap().port()])) else { return };

        let (mut server, mut client) = connect(&listener, host);
        let cookie = socket::cookie(&server);
        converse(&mut server, &mut client, 300);

        let stats = eventually("the map agrees with TCP_INFO", || {
            converse(&mut server, &mut client, 1);
            probe.get(cookie).unwrap().filter(|stats| agrees(stats, &server))
        });
        assert_eq!(stats.cookie, cookie);
        assert_eq!(stats.local.socket_addr(), client.peer_addr().unwrap(), "{bound}");
        assert_eq!(stats.remote.socket_addr(), client.local_addr().unwrap(), "{bound}");
        assert_eq!(stats.state, 1, "established");
        assert!(stats.srtt_us > 0 && stats.bytes_acked >= 300 * 220 && stats.data_segs_out >= 300);
        assert!(stats.created_ns < stats.last_update_ns);

        let mut all = Vec::new();
        probe.for_each(|stats| all.push(stats.cookie)).unwrap();
        assert_eq!(all, [cookie], "the client's side has another local port, and no other process is in the cgroup");

        drop((server, client));
        eventually("the entry is removed", || probe.get(cookie).unwrap().is_none().then_some(()));
        let mut events = Vec::new();
        probe.take_events().unwrap().drain(|event| events.push((event.cookie, event.kind())));
        assert_eq!(events, [(cookie, Some(EventKind::Established)), (cookie, Some(EventKind::Closed))]);
    }
}

#[test]
fn hundreds_of_connections_are_read_in_batches_and_all_are_removed() {
    let Some(ground) = Ground::try_new() else { return };
    let Some(mut probe) = ground.attach(unlimited(&[])) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // Two ends each, both of them tracked; below the usual limit of 1,024 files.
    let open: Vec<_> = (0..400).map(|_| connect(&listener, "127.0.0.1")).collect();
    let mut expected: Vec<u64> = open.iter().flat_map(|(server, client)| [socket::cookie(server), socket::cookie(client)]).collect();
    expected.sort_unstable();

    let mut seen = Vec::new();
    probe.for_each(|stats| seen.push(stats.cookie)).unwrap();
    seen.sort_unstable();
    assert_eq!(seen, expected);

    drop(open);
    eventually("an empty map", || {
        let mut count = 0;
        probe.for_each(|_| count += 1).unwrap();
        (count == 0).then_some(())
    });
    assert_eq!(probe.counters().unwrap(), Default::default());
}

/// The map is of the kind that makes room by itself: what was quiet longest is forgotten, and who speaks again is back.
#[test]
fn more_connections_than_the_map_has_room_for_are_survived() {
    const ROOM: u32 = 256;
    let Some(ground) = Ground::try_new() else { return };
    if ground.attach(unlimited(&[])).is_none() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = unlimited(&[listener.local_addr().unwrap().port()]);
    let mut probe = EbpfProbe::attach_with_room(ground.cgroup.path(), &config, ROOM).unwrap();
    let mut open: Vec<_> = (0..400).map(|_| connect(&listener, "127.0.0.1")).collect();
    let mut seen = Vec::new();
    probe.for_each(|stats| seen.push(stats.cookie)).unwrap();
    assert!((1..=ROOM as usize).contains(&seen.len()), "{} are tracked", seen.len());

    let (server, client) = open.iter_mut().find(|(server, _)| !seen.contains(&socket::cookie(server))).unwrap();
    converse(server, client, 5);
    let stats = eventually("one that was forgotten is back", || {
        converse(server, client, 1);
        probe.get(socket::cookie(server)).unwrap()
    });
    assert!(stats.bytes_acked >= 5 * 220 && stats.srtt_us > 0);
    drop(open);
    eventually("an empty map", || {
        let mut count = 0;
        probe.for_each(|_| count += 1).unwrap();
        (count == 0).then_some(())
    });
}

#[test]
fn events_that_nobody_reads_are_counted() {
    let Some(ground) = Ground::try_new() else { return };
    let Some(mut probe) = ground.attach(unlimited(&[])) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut events = probe.take_events().unwrap();
    assert!(probe.take_events().is_none());
    // Two ends, an establishment and a closing each, 32 bytes with the ring's header.
    let connections = tokenflow_ebpf_common::EVENT_RING_BYTES as usize / (4 * 32) + 100;
    for _ in 0..connections {
        drop(connect(&listener, "127.0.0.1"));
    }
    let lost = eventually("events dropped", || Some(probe.counters().unwrap().ring_full).filter(|&lost| lost > 0));
    let read = events.drain(|_| {});
    assert!(read > 4_000 && lost >= 50, "{read} read, {lost} lost");
    drop(connect(&listener, "127.0.0.1"));
    eventually("room again", || (events.drain(|_| {}) >= 2).then_some(()));
}

#[test]
fn nothing_is_measured_after_the_drop() {
    let Some(ground) = Ground::try_new() else { return };
    let Some(mut probe) = ground.attach(unlimited(&[])) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    probe.start(runtime.handle()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut events = probe.take_events().unwrap();
    let open = connect(&listener, "127.0.0.1");
    eventually("two events", || (events.drain(|_| {}) == 2).then_some(()));
    drop(probe);
    drop(open);
    drop(connect(&listener, "127.0.0.1"));
    assert_eq!(events.drain(|_| {}), 0);
}

/// `cargo test --release -p tokenflow-hint-server --test ebpf_probe -- --ignored --nocapture kernel_cost`
#[test]
#[ignore = "measures; switches kernel.bpf_stats_enabled on meanwhile"]
fn kernel_cost() {
    const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";
    for (name, interval_ns) in [("every callback refreshes", 0), ("10 ms between refreshes", 10_000_000)] {
        let Some(ground) = Ground::try_new() else { return };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = unlimited(&[listener.local_addr().unwrap().port()]);
        config.update_interval_ns = interval_ns;
        let Some(probe) = ground.attach(config) else { return };
        let (mut server, mut client) = connect(&listener, "127.0.0.1");
        let before = fs::read_to_string(SWITCH).unwrap();
        fs::write(SWITCH, "1").unwrap();
        let started = std::time::Instant::now();
        converse(&mut server, &mut client, 100_000);
        let elapsed = started.elapsed();
        fs::write(SWITCH, before).unwrap();
        let (runs, time) = probe.run_statistics().unwrap();
        println!(
            "{name}: {:.0} ns a run, {runs} runs for 100,000 chunks, {:.1} us a chunk and answer in all",
            time.as_nanos() as f64 / runs as f64,
            elapsed.as_micros() as f64 / 100_000.0
        );
    }
}
