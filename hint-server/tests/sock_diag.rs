//! Socket diagnostics against the kernel, on connections made here.

#[path = "common/pair.rs"]
mod pair;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use pair::{Pair, until};
use tokenflow_hint_server::probe::{Identity, Look, Probe, sock_diag::SockDiag};

fn looks(probe: &mut SockDiag) -> Vec<Look> {
    let mut looks = Vec::new();
    probe.looks(Duration::from_secs(1), &mut looks).unwrap();
    looks
}

#[test]
fn sees_exactly_the_watched_connections_under_their_cookies() {
    let (watched, other, v6) = (Pair::new("127.0.0.1:0"), Pair::new("127.0.0.1:0"), Pair::new("[::1]:0"));
    let mut probe = SockDiag::open(&[watched.port(), v6.port()]).unwrap();
    let mut looks = looks(&mut probe);
    looks.sort_by_key(|look| look.identity.peer.is_ipv6());
    assert_eq!(looks.len(), 2, "{looks:?}");
    for (look, pair) in looks.iter().zip([&watched, &v6]) {
        assert_eq!(look.identity.cookie, pair.cookie());
        assert_eq!(look.identity.peer, pair.peer());
        assert_eq!(look.identity.local, pair.server.local_addr().unwrap());
    }
    assert_ne!(other.port(), watched.port());

    drop(watched);
    let left = until(|| Some(self::looks(&mut probe)).filter(|looks| looks.len() == 1));
    assert_eq!(left[0].identity.cookie, v6.cookie());
}

#[test]
fn without_a_port_list_every_connection_is_seen() {
    let pair = Pair::new("127.0.0.1:0");
    let looks = looks(&mut SockDiag::open(&[]).unwrap());
    assert!(looks.iter().any(|look| look.identity.cookie == pair.cookie()));
    assert!(looks.iter().any(|look| look.identity.local == pair.peer()), "its client end too");
}

#[test]
fn an_ipv4_peer_of_a_dual_stack_listener_reads_as_ipv4() {
    let listener = TcpListener::bind("[::]:0").unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
    let pair = Pair::through(&listener, address);
    let looks = looks(&mut SockDiag::open(&[pair.port()]).unwrap());
    assert_eq!(looks.len(), 1);
    assert_eq!((looks[0].identity.local, looks[0].identity.peer), (address, pair.peer()));
}

#[test]
fn measures_what_was_delivered_and_what_was_not() {
    let mut pair = Pair::new("127.0.0.1:0");
    let mut probe = SockDiag::open(&[pair.port()]).unwrap();
    pair.server.write_all(&[1; 5000]).unwrap();
    pair.client.read_exact(&mut [0; 5000]).unwrap();
    let look = until(|| Some(looks(&mut probe)[0].measurement).filter(|look| look.bytes_acked >= 5000));
    assert_eq!(look.at, Duration::from_secs(1));
    assert_eq!(look.undelivered_bytes, 0);
    assert!(look.srtt_us > 0 && look.min_rtt_us > 0 && look.min_rtt_us <= look.srtt_us && look.data_segs_out > 0);

    pair.fill();
    let look = looks(&mut probe)[0].measurement;
    assert!(look.undelivered_bytes > 10_000, "{look:?}");
}

#[test]
fn a_client_that_closed_its_sending_half_is_still_seen() {
    let pair = Pair::new("127.0.0.1:0");
    pair.client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut probe = SockDiag::open(&[pair.port()]).unwrap();
    assert_eq!(looks(&mut probe).len(), 1);
}

#[test]
fn hundreds_of_connections_come_in_many_datagrams() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let pairs: Vec<Pair> = (0..300).map(|_| Pair::through(&listener, address)).collect();
    let mut cookies: Vec<u64> = looks(&mut SockDiag::open(&[address.port()]).unwrap()).iter().map(|look| look.identity.cookie).collect();
    let mut expected: Vec<u64> = pairs.iter().map(Pair::cookie).collect();
    cookies.sort_unstable();
    expected.sort_unstable();
    assert_eq!(cookies, expected);
}

#[test]
fn single_sockets_are_asked_for_by_their_cookie() {
    let dual = TcpListener::bind("[::]:0").unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], dual.local_addr().unwrap().port()));
    let mapped = Pair::through(&dual, address);
    let (v4, v6, gone) = (Pair::new("127.0.0.1:0"), Pair::new("[::1]:0"), Pair::new("127.0.0.1:0"));
    let ports = [&mapped, &v4, &v6, &gone].map(Pair::port);
    let mut probe = SockDiag::open(&ports).unwrap();
    let mut known = looks(&mut probe);
    assert_eq!(known.len(), 4);
    let mut which: Vec<_> = known.iter().map(|look| look.identity).collect();
    // One whose addresses another socket took has another cookie.
    let replaced = Identity { cookie: 1, ..which[0] };
    which.push(replaced);
    let closed = gone.cookie();
    drop(gone);
    let mut found = until(|| {
        let mut found = Vec::new();
        probe.looks_at(Duration::from_secs(1), &which, &mut found).unwrap();
        Some(found).filter(|found| found.len() == 3)
    });
    known.retain(|look| look.identity.cookie != closed);
    known.sort_by_key(|look| look.identity.cookie);
    found.sort_by_key(|look| look.identity.cookie);
    let identities = |looks: &[Look]| looks.iter().map(|look| look.identity).collect::<Vec<_>>();
    assert_eq!(identities(&found), identities(&known));
    assert!(found.iter().all(|look| look.measurement.srtt_us > 0));
}

#[test]
fn hundreds_of_single_questions_are_answered_in_batches() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let _pairs: Vec<Pair> = (0..300).map(|_| Pair::through(&listener, address)).collect();
    let mut probe = SockDiag::open(&[address.port()]).unwrap();
    let which: Vec<_> = looks(&mut probe).iter().map(|look| look.identity).collect();
    let mut found = Vec::new();
    probe.looks_at(Duration::ZERO, &which, &mut found).unwrap();
    assert_eq!(found.iter().map(|look| look.identity).collect::<Vec<_>>(), which);
    assert_eq!(probe.counters(), Default::default());
}
