//! Clients behind proxies: which connection of a gateway carries a request, as the gateway's headers say. Believed from configured proxies
//! alone, since whoever names a connection gets its health; what cannot be understood names none.
//!
//! Only the one header is read that the proxies are configured to write ([`ProxyHeader`]): others they may pass through as the client wrote
//! them. Of several hops the rightmost that is no trusted proxy is the client: what stands left of it, it may have written itself.

mod cidr;
mod forwarded;

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, header};
use clap::ValueEnum;

pub use cidr::{Cidr, CidrError};

use self::forwarded::Node;
use crate::health::Origin;

const CONNECTION: HeaderName = HeaderName::from_static("x-tokenflow-connection");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The header in which the proxies name the client's connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ProxyHeader {
    /// RFC 7239
    Forwarded,
    /// Where its entries have ports. The default: proxies that know of nothing else append to it, so that no client can write its end.
    #[default]
    XForwardedFor,
    /// A socket cookie, or `IP:PORT` of the client's end
    #[value(name = "x-tokenflow-connection")]
    XTokenFlowConnection,
}

/// Hosts whose word on where a request comes from is taken, and where they write it. None by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    networks: Vec<Cidr>,
    header: ProxyHeader,
}

impl TrustedProxies {
    pub fn new(networks: Vec<Cidr>, header: ProxyHeader) -> Self {
        Self { networks, header }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(address))
    }

    /// The client's connection to the gateway, for a request that came from the proxy `peer`; `None` where `peer` is none, or names none.
    pub fn origin(&self, peer: IpAddr, headers: &HeaderMap) -> Option<Origin> {
        if !self.contains(peer) {
            return None;
        }
        let values = |name| headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("?"));
        let hops = match self.header {
            ProxyHeader::XTokenFlowConnection => {
                let mut named = values(CONNECTION);
                // Of two, one is the client's.
                return named.next().filter(|_| named.next().is_none()).and_then(connection);
            }
            ProxyHeader::Forwarded => values(header::FORWARDED).map(forwarded::hops).collect::<Option<Vec<_>>>()?.concat(),
            ProxyHeader::XForwardedFor => values(X_FORWARDED_FOR).flat_map(forwarded::addresses).collect(),
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
