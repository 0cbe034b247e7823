//! The reader's copy of what the server knows, built from one snapshot and the changes after it.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Instant,
};

use crate::{Connection, Hint, HintEvent, RemoteConnection};

/// The hint server's word at one moment.
#[derive(Clone, Debug)]
pub struct HintState {
    /// The aggregate.
    pub hint: Hint,
    /// Every tracked connection by its socket cookie.
    pub connections: Arc<HashMap<u64, Connection>>,
    /// Other hosts' connections that are in trouble, by their peers.
    pub remote: Arc<HashMap<SocketAddr, RemoteConnection>>,
    /// Peers and their cookies in order, made when somebody first asks and from then on by whoever builds the states: readers do not wait.
    cookies: Arc<OnceLock<Vec<(SocketAddr, u64)>>>,
    /// When the server last said anything, a keep-alive included: until then nothing here had changed.
    pub received_at: Instant,
}

impl HintState {
    /// The state that a snapshot describes.
    pub fn from_snapshot(event: HintEvent, received_at: Instant) -> Self {
        let connections = event.changed.into_iter().map(|connection| (connection.cookie, connection)).collect();
        let remote = event.remote.into_iter().map(|connection| (connection.peer, connection)).collect();
        Self { hint: event.hint, connections: Arc::new(connections), remote: Arc::new(remote), cookies: Arc::default(), received_at }
    }

    /// This state after a change.
    pub fn changed(&self, event: HintEvent, received_at: Instant) -> Self {
        let mut state = Self { hint: event.hint, received_at, ..self.clone() };
        if !event.changed.is_empty() || !event.removed.is_empty() {
            let is_known = event.changed.iter().all(|connection| self.connections.contains_key(&connection.cookie));
            let connections = Arc::make_mut(&mut state.connections);
            for cookie in &event.removed {
                connections.remove(cookie);
            }
            connections.extend(event.changed.into_iter().map(|connection| (connection.cookie, connection)));
            // A connection keeps its peer.
            if !is_known || !event.removed.is_empty() {
                state.cookies = Arc::new(self.cookies.get().map_or_else(OnceLock::new, |_| by_peer(&state.connections).into()));
            }
        }
        if !event.remote.is_empty() || !event.remote_removed.is_empty() {
            let remote = Arc::make_mut(&mut state.remote);
            for peer in &event.remote_removed {
                remote.remove(peer);
            }
            remote.extend(event.remote.into_iter().map(|connection| (connection.peer, connection)));
        }
        state
    }

    /// This state, known to be still true.
    pub fn confirmed(&self, received_at: Instant) -> Self {
        Self { received_at, ..self.clone() }
    }

    /// This host's connection from a peer, an IPv4 address written as such; the worst where one port of the peer has several of ours.
    pub fn by_peer(&self, peer: SocketAddr) -> Option<&Connection> {
        let cookies = self.cookies.get_or_init(|| by_peer(&self.connections));
        let first = cookies.partition_point(|(other, _)| *other < peer);
        let found = cookies[first..].iter().take_while(|(other, _)| *other == peer).filter_map(|(_, cookie)| self.connections.get(cookie));
        found.min_by(|a, b| a.health.total_cmp(&b.health))
    }
}

fn by_peer(connections: &HashMap<u64, Connection>) -> Vec<(SocketAddr, u64)> {
    let mut cookies: Vec<_> = connections.values().map(|connection| (canonical(connection.peer), connection.cookie)).collect();
    cookies.sort_unstable();
    cookies
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn connection(cookie: u64, peer: &str, health: f64) -> Connection {
        let terms = json!({"delay": 1.0, "loss": 1.0, "queue": 1.0});
        serde_json::from_value(json!({
            "cookie": cookie, "local": "10.0.0.1:443", "peer": peer, "health": health, "terms": terms, "token_rate": null, "srtt_us": 1,
            "min_rtt_us": 1, "retransmits": 0, "undelivered_bytes": 0, "delivery_rate_bytes_per_s": 0, "age_ms": 0, "source": "ebpf",
        }))
        .unwrap()
    }

    fn event(changed: Vec<Connection>, removed: Vec<u64>) -> HintEvent {
        let metrics = crate::HintMetrics::default();
        let hint = Hint {
            health_factor: 1.0,
            health: 1.0,
            token_rate: None,
            metrics,
            source: crate::Source::Ebpf,
            connections: 0,
            age_ms: 0,
            seq: 1,
        };
        HintEvent { hint, changed, removed, remote: Vec::new(), remote_removed: Vec::new() }
    }

    #[test]
    fn a_peer_is_found_in_every_state_and_looked_for_anew_only_when_others_came_or_went() {
        let now = Instant::now();
        let health = |state: &HintState, peer: &str| state.by_peer(peer.parse().unwrap()).map(|connection| connection.health);
        let all = vec![connection(1, "[::ffff:192.0.2.1]:80", 0.5), connection(2, "192.0.2.2:80", 1.0), connection(3, "192.0.2.2:80", 0.7)];
        let state = HintState::from_snapshot(event(all, Vec::new()), now);
        assert_eq!((health(&state, "192.0.2.1:80"), health(&state, "192.0.2.2:80")), (Some(0.5), Some(0.7)), "the worst of two");
        assert_eq!(health(&state, "192.0.2.2:81"), None);

        let next = state.changed(event(vec![connection(2, "192.0.2.2:80", 0.2)], Vec::new()), now);
        assert!(Arc::ptr_eq(&state.cookies, &next.cookies));
        assert_eq!(health(&next, "192.0.2.2:80"), Some(0.2));

        let next = next.changed(event(vec![connection(4, "192.0.2.0:80", 0.4)], vec![1]), now);
        assert!(next.cookies.get().is_some(), "before anybody asks");
        assert_eq!((health(&next, "192.0.2.1:80"), health(&next, "192.0.2.0:80")), (None, Some(0.4)));
    }
}
