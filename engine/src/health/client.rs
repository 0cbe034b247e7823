use std::{net::SocketAddr, time::Duration};

/// No path by cable is longer: beyond it, time is spent in queues.
const LONGEST_HEALTHY_RTT: Duration = Duration::from_millis(400);

/// A connection that ends at a gateway, as a trusted proxy names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `SO_COOKIE` of a socket on this host.
    Cookie(u64),
    /// The client's end; an IPv4 address written as such.
    Peer(SocketAddr),
}

/// What a request says of the link that its answer takes: weaker than what is measured, and never better.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ClientWord {
    /// Whether it came through a trusted proxy, beyond which this host's socket does not see.
    pub proxied: bool,
    /// The client's connection to that proxy.
    pub origin: Option<Origin>,
    /// The client's own measurement.
    pub rtt: Option<Duration>,
    /// 0..=1.
    pub health_factor: Option<f64>,
}

impl ClientWord {
    /// The health that it asks for; its round trip counts only where nothing was `measured` of the whole path.
    pub(super) fn health(&self, measured: bool) -> f64 {
        let rtt = self.rtt.filter(|_| !measured).unwrap_or_default();
        let delay = if rtt > LONGEST_HEALTHY_RTT { LONGEST_HEALTHY_RTT.as_secs_f64() / rtt.as_secs_f64() } else { 1.0 };
        delay.min(self.health_factor.unwrap_or(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_counts_where_nobody_measured_and_a_factor_always() {
        let word = |rtt_ms, health_factor| ClientWord { rtt: Some(Duration::from_millis(rtt_ms)), health_factor, ..ClientWord::default() };
        assert_eq!(ClientWord::default().health(false), 1.0);
        assert_eq!(word(200, None).health(false), 1.0, "distance is not congestion");
        assert_eq!(word(800, None).health(false), 0.5);
        assert_eq!(word(800, None).health(true), 1.0);
        assert_eq!(word(800, Some(0.25)).health(false), 0.25);
        assert_eq!(word(0, Some(0.25)).health(true), 0.25);
    }
}
