use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// What measures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The kernel program, joined with socket diagnostics.
    Ebpf,
    /// Socket diagnostics alone.
    SockDiag,
    /// The engine's own TCP_INFO.
    Local,
    #[default]
    None,
}

/// `GET /hint`: the aggregate, or one connection with `?peer=` or `?cookie=`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hint {
    /// 0..=1.
    pub health_factor: f64,
    /// The same value; existing pollers read this name.
    pub health: f64,
    /// Tokens/s that the network carries; null where it is not the limit.
    pub token_rate: Option<f64>,
    pub metrics: HintMetrics,
    pub source: Source,
    /// Connections that count into the aggregate.
    pub connections: u64,
    /// Age of the youngest measurement.
    pub age_ms: u64,
    pub seq: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HintMetrics {
    /// Smoothed round-trip time, microseconds.
    pub rtt: u64,
    /// Microseconds.
    pub min_rtt: u64,
    /// Segments retransmitted.
    pub retrans: u64,
    /// Bytes/s.
    pub delivery_rate: u64,
    /// Bytes not yet acknowledged.
    pub queued_bytes: u64,
}

/// The three terms of a score, each 0..=1; health is their minimum.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    pub delay: f64,
    pub loss: f64,
    pub queue: f64,
}

/// One entry of `GET /connections`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    /// `SO_COOKIE`.
    pub cookie: u64,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    pub health: f64,
    pub terms: Terms,
    pub token_rate: Option<f64>,
    pub srtt_us: u32,
    pub min_rtt_us: u32,
    pub retransmits: u64,
    pub undelivered_bytes: u64,
    pub delivery_rate_bytes_per_s: u64,
    pub age_ms: u64,
    pub source: Source,
}

/// One event of `GET /hint/stream` (`event: snapshot` first, then `event: change`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HintEvent {
    #[serde(flatten)]
    pub hint: Hint,
    /// All connections in a snapshot, those that changed in a change. The hint's own `connections` is their number in the aggregate.
    pub changed: Vec<Connection>,
    /// Cookies of connections that are gone.
    pub removed: Vec<u64>,
    /// Other hosts' connections that are in trouble: all in a snapshot, those that changed in a change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remote: Vec<RemoteConnection>,
    /// Peers of other hosts' connections that are gone or out of trouble.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remote_removed: Vec<SocketAddr>,
}

/// What a reader needs of a connection that another host tracks, a gateway that streams pass through. Cookies mean nothing on this host, so
/// its peer names it; one that is in no trouble is not told, and counts as healthy as an unknown one does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemoteConnection {
    pub peer: SocketAddr,
    /// 0..=1.
    pub health: f64,
    pub min_rtt_us: u32,
    pub undelivered_bytes: u64,
    /// Bytes/s; null where the network is not the limit.
    pub delivery_rate_bytes_per_s: Option<u64>,
}

/// Healthier connections are in no trouble.
const TROUBLE_BELOW_HEALTH: f64 = 0.95;

impl RemoteConnection {
    /// `None` where the connection is in no trouble.
    pub fn in_trouble(connection: &Connection) -> Option<Self> {
        let Connection { peer, health, min_rtt_us, undelivered_bytes, .. } = *connection;
        let delivery_rate_bytes_per_s = connection.token_rate.map(|_| connection.delivery_rate_bytes_per_s);
        let is_troubled = health < TROUBLE_BELOW_HEALTH || delivery_rate_bytes_per_s.is_some();
        is_troubled.then_some(Self { peer, health, min_rtt_us, undelivered_bytes, delivery_rate_bytes_per_s })
    }
}
