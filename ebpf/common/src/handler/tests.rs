extern crate std;

use std::{collections::BTreeMap, vec::Vec};

use super::*;
use crate::Config;

const MS: u64 = 1_000_000;
const COOKIE: u64 = 0x1234_5678_9abc;

/// A connection whose fields a test sets by hand.
#[derive(Clone)]
struct Connection {
    op: u32,
    args: [u32; 2],
    family: u32,
    local_ip4: u32,
    remote_ip4: u32,
    ip6: [[u32; 4]; 2],
    ports: [u32; 2],
    srtt_us: u32,
    rtt_min: u32,
    total_retrans: u32,
    bytes_acked: u64,
    callbacks: Result<(), i64>,
}

impl Connection {
    fn v4() -> Self {
        Self {
            op: op::PASSIVE_ESTABLISHED,
            args: [0, 0],
            family: 2,
            local_ip4: u32::from_ne_bytes([10, 0, 0, 1]),
            remote_ip4: u32::from_ne_bytes([10, 0, 0, 2]),
            ip6: [[0; 4]; 2],
            ports: [8000, 40_000_u32.to_be()],
            srtt_us: 0,
            rtt_min: u32::MAX,
            total_retrans: 0,
            bytes_acked: 0,
            callbacks: Ok(()),
        }
    }

    fn at(&self, op: u32, args: [u32; 2]) -> Self {
        Self { op, args, ..self.clone() }
    }
}

macro_rules! constant_fields {
    ($($field:ident: $type:ty = $value:expr),* $(,)?) => { $(fn $field(&self) -> $type { $value })* };
}

impl SockOps for Connection {
    fn op(&self) -> u32 {
        self.op
    }
    fn arg0(&self) -> u32 {
        self.args[0]
    }
    fn arg1(&self) -> u32 {
        self.args[1]
    }
    fn cookie(&self) -> u64 {
        COOKIE
    }
    fn enable_callbacks(&self) -> Result<(), i64> {
        self.callbacks
    }
    fn family(&self) -> u32 {
        self.family
    }
    fn local_ip4(&self) -> u32 {
        self.local_ip4
    }
    fn remote_ip4(&self) -> u32 {
        self.remote_ip4
    }
    fn local_ip6(&self) -> [u32; 4] {
        self.ip6[0]
    }
    fn remote_ip6(&self) -> [u32; 4] {
        self.ip6[1]
    }
    fn local_port(&self) -> u32 {
        self.ports[0]
    }
    fn remote_port(&self) -> u32 {
        self.ports[1]
    }
    fn srtt_us(&self) -> u32 {
        self.srtt_us
    }
    fn rtt_min(&self) -> u32 {
        self.rtt_min
    }
    fn total_retrans(&self) -> u32 {
        self.total_retrans
    }
    fn bytes_acked(&self) -> u64 {
        self.bytes_acked
    }
    constant_fields! {
        state: u32 = state::ESTABLISHED, snd_cwnd: u32 = 10, snd_ssthresh: u32 = 20, mss_cache: u32 = 1448, packets_out: u32 = 3,
        retrans_out: u32 = 1, lost_out: u32 = 2, sacked_out: u32 = 4, rate_delivered: u32 = 5, rate_interval_us: u32 = 6,
        data_segs_out: u32 = 7, bytes_received: u64 = 8,
    }
}

/// Maps, ring and clock of the kernel, with room for `map_room` entries and `ring_room` events.
struct MockHost {
    now_ns: u64,
    config: Config,
    map: BTreeMap<u64, ConnectionStats>,
    map_room: usize,
    ring: Vec<Event>,
    ring_room: usize,
    counted: Vec<Counter>,
    refused: Vec<(Counter, u64, i64)>,
}

impl MockHost {
    fn watching(ports: &[u16]) -> Self {
        let config = Config { update_interval_ns: 10 * MS, event_interval_ns: 20 * MS, ..Config::watching(ports).unwrap() };
        Self {
            now_ns: 1_000 * MS,
            config,
            map: BTreeMap::new(),
            map_room: 2,
            ring: Vec::new(),
            ring_room: 100,
            counted: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// With one connection established and its event read.
    fn tracking(connection: &Connection) -> Self {
        let mut host = Self::watching(&[]);
        handle(connection, &mut host);
        host.ring.clear();
        host
    }

    fn after(&mut self, ms: u64) -> &mut Self {
        self.now_ns += ms * MS;
        self
    }

    fn events(&mut self) -> Vec<(EventKind, u32)> {
        self.ring.drain(..).map(|event| (event.kind().unwrap(), event.value)).collect()
    }
}

impl Host for MockHost {
    fn now_ns(&self) -> u64 {
        self.now_ns
    }
    fn watches(&self, local_port: u32) -> bool {
        self.config.watches(local_port)
    }
    fn update_interval_ns(&self) -> u64 {
        self.config.update_interval_ns
    }
    fn event_interval_ns(&self) -> u64 {
        self.config.event_interval_ns
    }
    fn entry(&mut self, cookie: u64) -> Option<&mut ConnectionStats> {
        self.map.get_mut(&cookie)
    }
    fn insert(&mut self, stats: &ConnectionStats) -> Result<(), i64> {
        if self.map.len() == self.map_room {
            return Err(-12);
        }
        self.map.insert(stats.cookie, *stats);
        Ok(())
    }
    fn remove(&mut self, cookie: u64) -> bool {
        self.map.remove(&cookie).is_some()
    }
    fn emit(&mut self, event: &Event) -> bool {
        let room = self.ring.len() < self.ring_room;
        if room {
            self.ring.push(*event);
        }
        room
    }
    fn count(&mut self, counter: Counter) {
        self.counted.push(counter);
    }
    fn refused(&mut self, counter: Counter, cookie: u64, error: i64) {
        self.refused.push((counter, cookie, error));
    }
}

#[test]
fn an_established_connection_is_tracked_with_its_addresses() {
    let mut host = MockHost::watching(&[8000]);
    handle(&Connection::v4(), &mut host);

    let stats = host.map[&COOKIE];
    assert_eq!((stats.cookie, stats.created_ns, stats.last_update_ns), (COOKIE, 1_000 * MS, 1_000 * MS));
    assert_eq!(stats.local.socket_addr(), "10.0.0.1:8000".parse().unwrap());
    assert_eq!(stats.remote.socket_addr(), "10.0.0.2:40000".parse().unwrap());
    assert_eq!((stats.srtt_us, stats.min_rtt_us), (0, 0), "nothing has been measured yet");
    assert_eq!((stats.snd_cwnd, stats.snd_ssthresh, stats.mss, stats.packets_out), (10, 20, 1448, 3));
    assert_eq!((stats.retrans_out, stats.lost_out, stats.sacked_out), (1, 2, 4));
    assert_eq!((stats.rate_delivered, stats.rate_interval_us, stats.data_segs_out, stats.bytes_received), (5, 6, 7, 8));
    assert_eq!(host.events(), [(EventKind::Established, 8000)]);
}

#[test]
fn an_ipv6_connection_keeps_its_words_and_a_mapped_one_reads_as_ipv4() {
    let v6 = [0x2001_0db8_u32.to_be(), 0, 0, 1_u32.to_be()];
    let mapped = [0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes([10, 0, 0, 9])];
    let connection = Connection { family: 10, ip6: [v6, mapped], op: op::ACTIVE_ESTABLISHED, ..Connection::v4() };
    let host = MockHost::tracking(&connection);
    assert_eq!(host.map[&COOKIE].local.socket_addr(), "[2001:db8::1]:8000".parse().unwrap());
    assert_eq!(host.map[&COOKIE].remote.socket_addr(), "10.0.0.9:40000".parse().unwrap());
}

#[test]
fn other_ports_and_other_callbacks_are_left_alone() {
    let mut host = MockHost::watching(&[9000]);
    handle(&Connection { callbacks: Err(-1), ..Connection::v4() }, &mut host);
    for unused in [0, 1, 2, 3, 6, 7, 11, 13, 99] {
        handle(&Connection::v4().at(unused, [0, 0]), &mut host);
    }
    assert!(host.map.is_empty() && host.ring.is_empty() && host.refused.is_empty());
}

#[test]
fn callbacks_that_another_program_asked_for_start_no_entry() {
    let mut host = MockHost::watching(&[9000]);
    for op in [op::RTT, op::RETRANS, op::RTO] {
        handle(&Connection::v4().at(op, [0, 0]), &mut host);
    }
    handle(&Connection::v4().at(op::STATE, [1, 8]), &mut host);
    handle(&Connection::v4().at(op::STATE, [8, state::CLOSE]), &mut host);
    assert!(host.map.is_empty() && host.ring.is_empty() && host.counted.is_empty() && host.refused.is_empty());
}

#[test]
fn measurements_are_refreshed_at_most_once_per_interval() {
    let connection = Connection::v4();
    let mut host = MockHost::tracking(&connection);
    let rtt = |srtt_us| Connection { srtt_us, rtt_min: 300, bytes_acked: 9, ..connection.at(op::RTT, [0, 0]) };

    handle(&rtt(8 * 500), host.after(9));
    assert_eq!(host.map[&COOKIE].srtt_us, 0);
    handle(&rtt(8 * 500), host.after(1));
    let stats = host.map[&COOKIE];
    assert_eq!((stats.srtt_us, stats.min_rtt_us, stats.bytes_acked), (500, 300, 9));
    assert_eq!((stats.created_ns, stats.last_update_ns), (1_000 * MS, 1_010 * MS));
    handle(&rtt(8 * 700), host.after(9));
    assert_eq!(host.map[&COOKIE].srtt_us, 500);
    assert!(host.ring.is_empty(), "measurements are not events");
}

#[test]
fn the_round_trip_time_that_the_kernel_passes_along_is_preferred() {
    let connection = Connection { srtt_us: 8 * 100, ..Connection::v4() };
    let mut host = MockHost::tracking(&connection);
    handle(&connection.at(op::RTT, [900, 8 * 200]), host.after(10));
    assert_eq!(host.map[&COOKIE].srtt_us, 200);
    handle(&connection.at(op::RETRANS, [1, 8 * 300]), host.after(10));
    assert_eq!(host.map[&COOKIE].srtt_us, 100, "other callbacks' arguments are no times");
}

#[test]
fn every_retransmission_counts_and_few_are_told() {
    let connection = Connection::v4();
    let mut host = MockHost::tracking(&connection);
    for total_retrans in 1..=6 {
        handle(&Connection { total_retrans, ..connection.at(op::RETRANS, [0, 1]) }, host.after(6));
    }
    let stats = host.map[&COOKIE];
    assert_eq!((stats.retransmit_events, stats.total_retrans), (6, 6));
    assert_eq!(stats.last_update_ns, 1_036 * MS, "refreshed at 12, 24 and 36 ms");
    assert_eq!(host.events(), [(EventKind::Retransmit, 1), (EventKind::Retransmit, 5)], "at 6 and 30 ms");
}

#[test]
fn every_timeout_is_told_and_refreshes() {
    let connection = Connection::v4();
    let mut host = MockHost::tracking(&connection);
    handle(&connection.at(op::RTO, [1, 200]), host.after(1));
    handle(&connection.at(op::RTO, [2, 400]), host.after(1));
    assert_eq!((host.map[&COOKIE].rto_count, host.map[&COOKIE].last_update_ns), (2, 1_002 * MS));
    assert_eq!(host.events(), [(EventKind::Rto, 1), (EventKind::Rto, 2)]);
}

#[test]
fn closing_removes_the_entry_and_says_from_which_state_once() {
    let connection = Connection::v4();
    let mut host = MockHost::tracking(&connection);
    handle(&connection.at(op::STATE, [1, 8]), &mut host);
    assert_eq!(host.map[&COOKIE].state, 8);
    assert!(host.ring.is_empty());
    handle(&connection.at(op::STATE, [9, state::CLOSE]), &mut host);
    handle(&connection.at(op::STATE, [9, state::CLOSE]), &mut host);
    assert!(host.map.is_empty());
    assert_eq!(host.events(), [(EventKind::Closed, 9)]);
}

#[test]
fn a_connection_that_the_map_dropped_comes_back_when_it_is_active() {
    for (op, events) in [(op::RTT, &[][..]), (op::RETRANS, &[]), (op::RTO, &[(EventKind::Rto, 1)])] {
        let connection = Connection::v4();
        let mut host = MockHost::tracking(&connection);
        host.map.clear();
        handle(&connection.at(op, [0, 0]), host.after(5));
        assert_eq!(host.map[&COOKIE].created_ns, 1_005 * MS);
        assert_eq!(host.events(), events);
    }
}

#[test]
fn what_could_not_be_done_is_counted() {
    let connection = Connection::v4();
    let mut host = MockHost { map_room: 0, ..MockHost::watching(&[]) };
    handle(&connection, &mut host);
    handle(&connection.at(op::RTO, [0, 0]), &mut host);
    assert_eq!(host.refused, [(Counter::MapFull, COOKIE, -12); 2]);
    assert!(host.ring.is_empty(), "nobody hears of a connection that is not in the map");

    let mut host = MockHost::watching(&[]);
    handle(&Connection { callbacks: Err(-22), ..connection.clone() }, &mut host);
    assert_eq!(host.refused, [(Counter::CallbacksRefused, COOKIE, -22)]);
    assert!(host.map.is_empty());

    let mut host = MockHost { ring_room: 0, ..MockHost::watching(&[]) };
    handle(&connection, &mut host);
    assert_eq!(host.counted, [Counter::RingFull]);
    assert!(host.map.contains_key(&COOKIE), "the map does not depend on the ring");
}
