//! The testbed's links do what their shapes say: what the experiments measure rests on it.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    process::{Command, Stdio},
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use socket2::SockRef;
use tokenflow_tests::netns::{self, ClientSpec, CongestionControl, Group, LinkShape, QueueState, Topology, TopologySpec};

/// A TCP segment's payload and its frame.
const PAYLOAD_OF_FRAME: f64 = 1448.0 / 1514.0;

/// Set for the copy of this program that is killed.
const VICTIM: &str = "TOKENFLOW_TESTBED_VICTIM";

static TURN: Mutex<()> = Mutex::new(());

/// One test at a time, or none where there can be no links.
fn turn() -> Option<MutexGuard<'static, ()>> {
    if let Some(reason) = netns::unavailable() {
        assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: {reason}");
        eprintln!("skipped: {reason}");
        return None;
    }
    Some(TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
}

fn client(link: LinkShape) -> ClientSpec {
    ClientSpec { name: "client".to_owned(), link, congestion_control: CongestionControl::Cubic }
}

fn one(link: LinkShape) -> Topology {
    Topology::new(&TopologySpec { clients: vec![client(link)], shared: None }).unwrap()
}

/// A download that a client of the group began; ends when dropped.
struct Download {
    reader: TcpStream,
    /// The server's end.
    accepted: TcpStream,
}

impl Download {
    fn start(group: &Group) -> Self {
        let listener = TcpListener::bind((group.server_address(), 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let reader = group.client().within(|| Ok(TcpStream::connect(address)?)).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let mut writer = accepted.try_clone().unwrap();
        thread::spawn(move || while writer.write_all(&[0; 16384]).is_ok() {});
        Self { reader, accepted }
    }

    /// Bits per second on the wire over so long.
    fn rate(&mut self, over: Duration) -> f64 {
        let (began, mut bytes, mut buffer) = (Instant::now(), 0, vec![0; 65536]);
        while began.elapsed() < over {
            bytes += self.reader.read(&mut buffer).unwrap();
        }
        bytes as f64 * 8.0 / PAYLOAD_OF_FRAME / began.elapsed().as_secs_f64()
    }

    /// The same once it is near what is expected, which a busy machine may put off.
    fn settled_rate(&mut self, expected: f64) -> f64 {
        let mut last = 0.0;
        for _ in 0..10 {
            last = self.rate(Duration::from_millis(600));
            if (0.9..1.1).contains(&(last / expected)) {
                break;
            }
        }
        last
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        let _ = self.accepted.shutdown(std::net::Shutdown::Both);
    }
}

fn assert_near(value: f64, expected: f64) {
    assert!((0.9..1.1).contains(&(value / expected)), "{value:.0} instead of {expected:.0}");
}

#[test]
fn a_link_is_as_fast_as_its_shape_also_when_that_changes() {
    let Some(_turn) = turn() else { return };
    let topology = one(LinkShape::limited(2_000_000));
    let group = topology.group(0);
    let mut download = Download::start(&group);
    assert_near(download.settled_rate(2e6), 2e6);
    let queue = until(&mut download, |queue| queue.bytes > 0, &group);
    assert!(queue.bytes <= LinkShape::QUEUE_BYTES, "{queue:?}");
    assert_near(queue.delay.as_secs_f64(), queue.bytes as f64 * 8.0 / 2e6);
    group.shape(&LinkShape::limited(8_000_000)).unwrap();
    assert_near(download.settled_rate(8e6), 8e6);
    group.shape(&LinkShape::limited(200_000).queue(40_000)).unwrap();
    download.rate(Duration::from_secs(1));
    assert_near(download.settled_rate(2e5), 2e5);
    until(&mut download, |queue| queue.delay > Duration::from_millis(100), &group);
    drop(download);
    topology.reset().unwrap();
    assert_eq!((group.link().queue().unwrap().bytes, group.link().current()), (0, LinkShape::limited(2_000_000)));
    group.shape(&LinkShape::free()).unwrap();
    let mut download = Download::start(&group);
    let free = download.rate(Duration::from_millis(500));
    assert!(free > 2e7, "freed, it still carries only {free:.0} bit/s");
    assert_eq!(group.link().queue().unwrap().delay, Duration::ZERO);
}

/// The group's queue once it is as asked, while the download goes on.
fn until(download: &mut Download, asked: impl Fn(&QueueState) -> bool, group: &Group) -> QueueState {
    let began = Instant::now();
    loop {
        let queue = group.link().queue().unwrap();
        if asked(&queue) {
            return queue;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{queue:?}");
        download.rate(Duration::from_millis(20));
    }
}

#[test]
fn a_narrow_link_carries_full_packets() {
    let Some(_turn) = turn() else { return };
    // A rate at which a burst of exactly one packet would be rounded down to less.
    let topology = one(LinkShape::limited(60_000));
    let mut download = Download::start(&topology.group(0));
    download.reader.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    download.reader.read_exact(&mut [0; 15_000]).expect("full packets come through");
}

#[test]
fn a_lossy_link_loses_the_fraction_that_it_should() {
    let Some(_turn) = turn() else { return };
    let topology = one(LinkShape::free().loss(0.1));
    let group = topology.group(0);
    let lost = |packets: usize| lost_of(&group, packets);
    // Five standard deviations.
    let (packets, expected, tolerance) = (4000, 400.0, 95.0);
    let at_first = lost(packets) as f64;
    assert!((at_first - expected).abs() < tolerance, "{at_first} of {packets} at 10 %");
    group.shape(&LinkShape::free().loss(0.02)).unwrap();
    let then = lost(packets) as f64;
    assert!((then - 80.0).abs() < 45.0, "{then} of {packets} at 2 %");
    group.shape(&LinkShape::free()).unwrap();
    assert_eq!(lost(packets), 0);
}

/// How many of these UDP packets do not come; those that do must be in order.
fn lost_of(group: &Group, packets: usize) -> usize {
    let receiver = group.client().within(|| Ok(UdpSocket::bind((group.client_address(), 0))?)).unwrap();
    let room: libc::c_int = 64 << 20;
    // SAFETY: setsockopt(2) with an integer that outlives the call.
    let rc = unsafe {
        libc::setsockopt(receiver.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, (&raw const room).cast(), size_of_val(&room) as u32)
    };
    assert_eq!(rc, 0, "no room for packets that wait to be counted");
    receiver.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let sender = UdpSocket::bind((group.server_address(), 0)).unwrap();
    sender.connect(receiver.local_addr().unwrap()).unwrap();
    for n in 0..packets as u32 {
        sender.send(&n.to_be_bytes()).unwrap();
        if n % 100 == 0 {
            // Neither a device's ring nor the backlog of a busy core shall overflow.
            thread::sleep(Duration::from_millis(10));
        }
    }
    let mut numbers = Vec::new();
    let mut packet = [0; 4];
    while receiver.recv(&mut packet).is_ok() {
        numbers.push(u32::from_be_bytes(packet));
    }
    assert!(numbers.is_sorted(), "packets overtook each other");
    packets - numbers.len()
}

#[test]
fn delay_is_what_the_shape_says_in_both_directions_together() {
    let Some(_turn) = turn() else { return };
    let topology = one(LinkShape::free().delay(Duration::from_millis(40)));
    let group = topology.group(0);
    assert_round_trip(&group, 80.0);
    group.shape(&LinkShape::free().delay(Duration::from_millis(10))).unwrap();
    assert_round_trip(&group, 20.0);
    assert_eq!(lost_of(&group, 2000), 0);
    let error = group.shape(&LinkShape::free().loss(1.5)).unwrap_err();
    assert!(format!("{error:#}").contains("loss is 1.5"), "{error:#}");
    group.shape(&LinkShape::limited(4_000_000).delay(Duration::from_millis(10))).unwrap();
    assert_near(Download::start(&group).settled_rate(4e6), 4e6);
    let undelayed = one(LinkShape::free());
    let error = undelayed.group(0).shape(&LinkShape::free().delay(Duration::from_millis(1))).unwrap_err();
    assert!(format!("{error:#}").contains("without delay"), "{error:#}");
}

/// The best of the probes: what a busy machine adds is not the link's.
fn assert_round_trip(group: &Group, expected_ms: f64) {
    let probe = group.rtt_probe().unwrap();
    let began = Instant::now();
    let best = || probe.samples().iter().map(|s| s.rtt.as_secs_f64() * 1e3).fold(f64::INFINITY, f64::min);
    while best() >= expected_ms + 2.0 && began.elapsed() < Duration::from_secs(20) {
        thread::sleep(Duration::from_millis(20));
    }
    let best = best();
    assert!((expected_ms..expected_ms + 2.0).contains(&best), "{best} ms instead of {expected_ms} ms");
}

#[test]
fn each_path_has_its_own_congestion_control() {
    let Some(_turn) = turn() else { return };
    let clients = CongestionControl::ALL.map(|congestion_control| ClientSpec { congestion_control, ..client(LinkShape::free()) });
    for shared in [None, Some(LinkShape::free())] {
        let topology = Topology::new(&TopologySpec { clients: clients.to_vec(), shared }).unwrap();
        for (group, expected) in topology.groups().iter().zip(CongestionControl::ALL) {
            let download = Download::start(group);
            let name = SockRef::from(&download.accepted).tcp_congestion().unwrap();
            assert_eq!(String::from_utf8_lossy(&name).trim_end_matches('\0'), expected.name());
        }
    }
}

#[test]
fn a_shared_bottleneck_is_shared() {
    let Some(_turn) = turn() else { return };
    let rate = 4e6;
    let shared = Some(LinkShape::limited(rate as u64).queue(100_000));
    let topology = Topology::new(&TopologySpec { clients: vec![client(LinkShape::free()); 2], shared }).unwrap();
    let (busy, idle) = (topology.group(0), topology.group(1));
    let probe = idle.rtt_probe().unwrap();
    let mut download = Download::start(&busy);
    assert_near(download.settled_rate(rate), rate);
    let worst = || probe.samples().iter().map(|s| s.rtt).max().unwrap_or_default();
    let began = Instant::now();
    while worst() < Duration::from_millis(50) {
        assert!(began.elapsed() < Duration::from_secs(10), "the neighbour's queue of up to 200 ms costs an idle client {:?}", worst());
        download.rate(Duration::from_millis(300));
    }
    let second = thread::spawn(move || Download::start(&idle).rate(Duration::from_secs(2)));
    let sum = download.rate(Duration::from_secs(2)) + second.join().unwrap();
    // Their two seconds are not quite the same; links of their own would give twice the rate.
    assert!(sum < rate * 1.5, "together they got {sum:.0} bit/s");
}

#[test]
fn what_a_killed_owner_left_is_removed() {
    let Some(_turn) = turn() else { return };
    if std::env::var_os(VICTIM).is_some() {
        let shape = LinkShape::limited(1_000_000).loss(0.1).delay(Duration::from_millis(1));
        let _topology = Topology::new(&TopologySpec { clients: vec![client(shape)], shared: Some(LinkShape::free()) }).unwrap();
        println!("ready");
        thread::sleep(Duration::from_secs(60));
        return;
    }
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "what_a_killed_owner_left_is_removed", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut output = victim.stdout.take().unwrap();
    while !said.contains("ready") {
        let mut byte = [0];
        output.read_exact(&mut byte).unwrap();
        said.push(byte[0].into());
    }
    let (namespaces, devices) = (format!("tflow-{}-", victim.id()), format!("tf{}n", victim.id()));
    let left = || {
        let output = |arguments: &[&str]| String::from_utf8(Command::new("ip").args(arguments).output().unwrap().stdout).unwrap();
        (
            output(&["netns", "list"]).matches(&namespaces).count(),
            output(&["link"]).contains(&devices),
            output(&["route"]).contains(&devices),
        )
    };
    assert_eq!(left(), (3, true, true));
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert_eq!(left().0, 3, "nobody removes what is left by itself");
    netns::remove_stale();
    let began = Instant::now();
    while left() != (0, false, false) {
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", left());
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_topology_leaves_nothing_behind() {
    let Some(_turn) = turn() else { return };
    let topology = Topology::new(&TopologySpec { clients: vec![client(LinkShape::free()); 3], shared: Some(LinkShape::free()) }).unwrap();
    let group = topology.group(0);
    let prefix = format!("tflow-{}-", std::process::id());
    let names = || Command::new("ip").args(["netns", "list"]).output().unwrap().stdout;
    let count = || String::from_utf8(names()).unwrap().matches(&prefix).count();
    let with = count();
    drop(topology);
    assert!(Arc::strong_count(&group) == 1 && count() == with - 2, "a group that is still held keeps its path");
    drop(group);
    assert_eq!(count(), with - 5);
}
