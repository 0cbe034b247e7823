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
    /// Cookies by peer, made when somebody asks.
    cookies: Arc<OnceLock<HashMap<SocketAddr, u64>>>,
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
            let connections = Arc::make_mut(&mut state.connections);
            for cookie in &event.removed {
                connections.remove(cookie);
            }
            connections.extend(event.changed.into_iter().map(|connection| (connection.cookie, connection)));
            state.cookies = Arc::default();
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

    /// This host's connection from a peer, an IPv4 address written as such.
    pub fn by_peer(&self, peer: SocketAddr) -> Option<&Connection> {
        let cookies = self.cookies.get_or_init(|| {
            let cookie = |connection: &Connection| (canonical(connection.peer), connection.cookie);
            self.connections.values().map(cookie).collect()
        });
        self.connections.get(cookies.get(&peer)?)
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
