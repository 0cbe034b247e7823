use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use tokenflow_ebpf_common::{ConnectionStats, EventKind};
use tokenflow_hint_server::probe::ebpf::EbpfProbe;

use super::{Ground, eventually, namespaces, socket, unlimited};

const PORT: u16 = 8000;

/// Reads all that comes, to the end.
fn drain(mut stream: TcpStream) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
    })
}

/// Writes what the socket takes, until the entry in the map is as wanted.
fn write_until(what: &str, server: &mut TcpStream, probe: &EbpfProbe, wanted: impl Fn(&ConnectionStats) -> bool) -> ConnectionStats {
    let cookie = socket::cookie(server);
    eventually(what, || {
        match server.write(&[b'x'; 220]) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => panic!("{error}"),
            _ => {}
        }
        probe.get(cookie).unwrap().filter(&wanted)
    })
}

#[test]
fn a_narrow_link_shows_as_delay_loss_and_timeouts() {
    let Some(ground) = Ground::try_new() else { return };
    let Some(mut probe) = ground.attach(unlimited(&[PORT])) else { return };
    let Some(link) = namespaces::Link::try_new() else { return };
    let mut events = probe.take_events().unwrap();

    let listener = link.on_side(0, || TcpListener::bind((namespaces::ADDRESSES[0], PORT)).unwrap());
    let client = link.on_side(1, || TcpStream::connect((namespaces::ADDRESSES[0], PORT)).unwrap());
    let (mut server, _) = listener.accept().unwrap();
    server.set_nodelay(true).unwrap();
    server.set_nonblocking(true).unwrap();
    let reader = drain(client.try_clone().unwrap());

    let free = write_until("a round trip is measured", &mut server, &probe, |stats| stats.bytes_acked > 10_000);
    assert!(free.srtt_us < 20_000, "srtt of an idle veth pair: {} us", free.srtt_us);

    link.throttle("32kbit", "6k");
    let narrow =
        write_until("delay and loss on the narrow link", &mut server, &probe, |stats| stats.srtt_us > 200_000 && stats.total_retrans > 0);
    assert!(narrow.min_rtt_us < 20_000, "the minimum remembers the free link: {} us", narrow.min_rtt_us);
    assert!(narrow.retransmit_events > 0 && narrow.snd_cwnd > 0);
    let mut kinds = Vec::new();
    events.drain(|event| kinds.push(event.kind().unwrap()));
    assert_eq!(kinds[0], EventKind::Established);
    assert!(kinds.contains(&EventKind::Retransmit), "{kinds:?}");

    link.silence_side_1();
    let silenced = Instant::now();
    let (cookie, before) = (socket::cookie(&server), narrow.rto_count);
    eventually("a timeout event", || {
        let mut timeouts = 0;
        events.drain(|event| {
            timeouts += u32::from(event.kind() == Some(EventKind::Rto) && event.cookie == cookie && event.value > before);
        });
        (timeouts > 0).then_some(())
    });
    assert!(silenced.elapsed() > Duration::from_millis(1) && probe.get(cookie).unwrap().unwrap().rto_count > before);

    client.shutdown(std::net::Shutdown::Both).unwrap();
    reader.join().unwrap();
}
