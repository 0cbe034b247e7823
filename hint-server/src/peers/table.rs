//! What is known of other hosts. Pure: the time is passed in. A host that says nothing new for three seconds is forgotten.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use tokenflow_hint_api::{Connection, RemoteConnection};

use super::HostReport;

/// A host's word counts for this long.
pub const EXPIRES: Duration = Duration::from_secs(3);
/// More hosts than this are not read.
pub const MAX_HOSTS: usize = 256;
/// Connections of all other hosts together, which so many hosts share evenly: what others write may not fill our memory.
pub const MAX_REMOTE_CONNECTIONS: usize = 65_536;

/// Another host, as it last was.
#[derive(Clone, Debug)]
pub struct Remote {
    pub report: Arc<HostReport>,
    /// When its latest report was first seen.
    heard_at: Duration,
    /// The worst where one port of the peer has several connections.
    by_peer: Arc<HashMap<SocketAddr, usize>>,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct PeerTable {
    hosts: BTreeMap<String, Remote>,
    /// `run` and `seq` of each host in the latest round, forgotten hosts included: the same word again is not news.
    words: HashMap<String, (u64, u64)>,
}

impl Remote {
    fn new(report: HostReport, heard_at: Duration) -> Self {
        let mut by_peer = HashMap::with_capacity(report.connections.len());
        for (index, connection) in report.connections.iter().enumerate() {
            let worst: &mut usize = by_peer.entry(connection.peer).or_insert(index);
            if connection.health < report.connections[*worst].health {
                *worst = index;
            }
        }
        Self { report: Arc::new(report), heard_at, by_peer: Arc::new(by_peer) }
    }

    /// Time since its latest report was first seen.
    pub fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.heard_at)
    }

    /// Its connections, as old as they are by now.
    pub fn connections(&self, now: Duration) -> impl Iterator<Item = Connection> {
        self.report.connections.iter().map(move |connection| self.aged(connection, now))
    }

    fn aged(&self, connection: &Connection, now: Duration) -> Connection {
        Connection { age_ms: connection.age_ms.saturating_add(self.age(now).as_millis() as u64), ..connection.clone() }
    }
}

impl PeerTable {
    /// The table after a round in which these reports were read; one that was read before does not count as heard again.
    pub fn after(&self, now: Duration, reports: impl IntoIterator<Item = HostReport>) -> Self {
        let mut hosts: BTreeMap<String, Remote> = self
            .hosts
            .iter()
            .filter(|(_, remote)| remote.age(now) < EXPIRES)
            .map(|(host, remote)| (host.clone(), remote.clone()))
            .collect();
        let mut words = HashMap::new();
        for report in reports.into_iter().take(MAX_HOSTS) {
            let word = (report.run, report.seq);
            let known = self.hosts.get(&report.host).map(|known| (known.report.run, known.report.seq));
            let heard_before = known == Some(word) || self.words.get(&report.host) == Some(&word);
            words.insert(report.host.clone(), word);
            if heard_before || (hosts.len() >= MAX_HOSTS && !hosts.contains_key(&report.host)) {
                continue;
            }
            hosts.insert(report.host.clone(), Remote::new(report, now));
        }
        Self { hosts, words }
    }

    /// Hosts that count now, in the order of their names.
    pub fn hosts(&self, now: Duration) -> impl Iterator<Item = &Remote> {
        self.hosts.values().filter(move |remote| remote.age(now) < EXPIRES)
    }

    pub fn host(&self, name: &str, now: Duration) -> Option<&Remote> {
        self.hosts.get(name).filter(|remote| remote.age(now) < EXPIRES)
    }

    /// Connections in trouble, each by its peer; the most recent word where several hosts claim one, and of one host's the worst. Two hosts
    /// behind different addresses may well have the same client port: then the latest word may be of the other's connection.
    pub fn troubled(&self, now: Duration) -> HashMap<SocketAddr, RemoteConnection> {
        let mut hosts: Vec<_> = self.hosts(now).collect();
        hosts.sort_by_key(|remote| std::cmp::Reverse(remote.age(now)));
        let mut found: HashMap<SocketAddr, RemoteConnection> = HashMap::new();
        let canonical = |peer: SocketAddr| SocketAddr::new(peer.ip().to_canonical(), peer.port());
        for remote in hosts {
            let connections = &remote.report.connections;
            for connection in connections {
                found.remove(&canonical(connection.peer));
            }
            for troubled in connections.iter().filter_map(RemoteConnection::in_trouble) {
                let peer = canonical(troubled.peer);
                let worst = found.entry(peer).or_insert(RemoteConnection { peer, ..troubled });
                if troubled.health < worst.health {
                    *worst = RemoteConnection { peer, ..troubled };
                }
            }
        }
        found
    }

    /// The connection from this peer and the host that has it; the most recent word where several claim it.
    pub fn by_peer(&self, peer: SocketAddr, now: Duration) -> Option<(&str, Connection)> {
        let found = self.hosts(now).filter_map(|remote| {
            let connection = &remote.report.connections[*remote.by_peer.get(&peer)?];
            Some((remote.report.host.as_str(), remote.aged(connection, now)))
        });
        found.min_by_key(|(_, connection)| connection.age_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::report::tests::{connection, hint},
        *,
    };

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn report(host: &str, seq: u64, cookies: &[u64]) -> HostReport {
        HostReport::new(host, 7, seq, hint(), 2, cookies.iter().map(|&cookie| connection(cookie, 0.5)).collect())
    }

    #[test]
    fn answers_for_every_host_and_tells_how_old_the_answer_is() {
        let table = PeerTable::default().after(ms(1000), [report("a", 1, &[1, 2]), report("b", 1, &[3])]);
        let (host, found) = table.by_peer(connection(3, 0.5).peer, ms(1200)).unwrap();
        assert_eq!((host, found.cookie, found.age_ms), ("b", 3, 220));
        assert_eq!(table.hosts(ms(1200)).count(), 2);
        assert_eq!(table.host("a", ms(1200)).unwrap().connections(ms(1200)).count(), 2);
        assert!(table.by_peer(connection(9, 0.5).peer, ms(1200)).is_none());
    }

    #[test]
    fn a_host_that_says_nothing_new_is_forgotten() {
        let mut table = PeerTable::default().after(ms(0), [report("a", 1, &[1]), report("b", 1, &[2])]);
        for at in (500..8000).step_by(500) {
            table = table.after(ms(at), [report("a", 1, &[1]), report("b", at, &[2])]);
            assert_eq!(table.hosts.contains_key("a"), at < 3000, "its last word is not news when it is read once more: {at}");
        }
        assert_eq!(table.hosts(ms(7600)).map(|remote| &*remote.report.host).collect::<Vec<_>>(), ["b"]);
        assert_eq!(table.hosts.len(), 1);
        assert!(table.by_peer(connection(2, 0.5).peer, ms(11_000)).is_none(), "nobody was heard for three seconds");
    }

    #[test]
    fn a_connection_that_moved_is_where_it_was_last_heard_of() {
        let table = PeerTable::default().after(ms(0), [report("a", 1, &[1])]).after(ms(900), [report("b", 1, &[1])]);
        assert_eq!(table.by_peer(connection(1, 0.5).peer, ms(1000)).unwrap().0, "b");
        let table = table.after(ms(1000), [HostReport::new("c", 7, 1, hint(), 2, vec![connection(1, 1.0), connection(2, 0.2)])]);
        let troubled = table.troubled(ms(1100));
        assert_eq!(troubled.len(), 1, "the latest word of the first is that it is well");
        assert_eq!(troubled[&connection(2, 0.2).peer].health, 0.2);
        assert!(table.troubled(ms(9000)).is_empty());
    }

    #[test]
    fn of_one_hosts_connections_from_the_same_port_the_worst_counts() {
        let at_one_port = |healths: &[f64]| healths.iter().map(|&health| connection(1, health)).collect();
        for healths in [[0.3, 1.0, 0.6], [1.0, 0.6, 0.3], [0.6, 0.3, 1.0]] {
            let table = PeerTable::default().after(ms(0), [HostReport::new("a", 7, 1, hint(), 2, at_one_port(&healths))]);
            let peer = connection(1, 0.3).peer;
            assert_eq!(table.troubled(ms(100))[&peer].health, 0.3);
            assert_eq!(table.by_peer(peer, ms(100)).unwrap().1.health, 0.3);
        }
    }

    #[test]
    fn there_is_room_for_so_many_hosts_and_no_more() {
        let many = (0..MAX_HOSTS + 10).map(|n| report(&format!("h{n}"), 1, &[]));
        let table = PeerTable::default().after(ms(0), many);
        assert_eq!(table.hosts(ms(0)).count(), MAX_HOSTS);
    }
}
