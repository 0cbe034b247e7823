//! Clients behind proxies: which connection of a gateway carries a request, as the gateway's headers say. Believed from configured proxies
//! alone, since whoever names a connection gets its health; what cannot be understood names none.
//!
//! `X-TokenFlow-Connection` (a socket cookie, or `IP:PORT` of the client's end) goes before `Forwarded` (RFC 7239), and that before
//! `X-Forwarded-For`. Of several hops the rightmost that is no trusted proxy is the client: what stands left of it, it may have written itself.

mod cidr;
mod forwarded;

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, header};

pub use cidr::{Cidr, CidrError};

use self::forwarded::Node;
use crate::health::Origin;

const CONNECTION: HeaderName = HeaderName::from_static("x-tokenflow-connection");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Hosts whose word on where a request comes from is taken. None by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Cidr>);

impl TrustedProxies {
    pub fn new(networks: Vec<Cidr>) -> Self {
        Self(networks)
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// The client's connection to the gateway, for a request that came from the proxy `peer`; `None` where `peer` is none, or names none.
    pub fn origin(&self, peer: IpAddr, headers: &HeaderMap) -> Option<Origin> {
        if !self.contains(peer) {
            return None;
        }
        if let Some(value) = headers.get(CONNECTION) {
            return connection(value.to_str().ok()?);
        }
        let values = |name| headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("?"));
        let hops = if headers.contains_key(header::FORWARDED) {
            values(header::FORWARDED).map(forwarded::hops).collect::<Option<Vec<_>>>()?.concat()
        } else {
            values(X_FORWARDED_FOR).flat_map(forwarded::addresses).collect()
        };
        self.client(&hops).map(Origin::Peer)
    }

    /// The rightmost hop that is no proxy of ours; where all are, the leftmost.
    fn client(&self, hops: &[Option<Node>]) -> Option<SocketAddr> {
        let from_the_right = hops.iter().rev();
        let client = from_the_right.clone().find(|hop| hop.is_none_or(|node| !self.contains(node.address)));
        let node = (*client.or(hops.first())?)?;
        Some(SocketAddr::new(node.address, node.port?))
    }
}

/// A cookie, or the client's end of the connection.
fn connection(text: &str) -> Option<Origin> {
    let text = text.trim();
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().filter(|&cookie| cookie != 0).map(Origin::Cookie);
    }
    let address: SocketAddr = text.parse().ok()?;
    Some(Origin::Peer(SocketAddr::new(address.ip().to_canonical(), address.port())))
}

#[cfg(test)]
mod tests;
