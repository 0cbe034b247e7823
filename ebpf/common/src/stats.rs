use core::net::{IpAddr, Ipv6Addr, SocketAddr};

/// One TCP connection as the kernel program last saw it; the value of the map whose key is the socket cookie.
///
/// Scores are made of some of the fields; windows, segments in flight and bytes received are for people
/// who look into the map (`bpftool map dump`).
///
/// The kernel writes it in place while a reader copies it: each word is whole, but neighbours may be one update apart.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionStats {
    /// `SO_COOKIE` of the socket.
    pub cookie: u64,
    /// When the handshake completed, `CLOCK_MONOTONIC` nanoseconds.
    pub created_ns: u64,
    /// When the measurements below were taken, `CLOCK_MONOTONIC` nanoseconds.
    pub last_update_ns: u64,
    /// When the last retransmit event was sent to the ring; the program limits their rate by it.
    pub last_retransmit_event_ns: u64,
    /// Bytes that the peer acknowledged.
    pub bytes_acked: u64,
    /// Bytes that the peer sent and this side received in order.
    pub bytes_received: u64,
    /// Smoothed round-trip time, microseconds (already shifted down from the kernel's eighths); 0 where not yet measured.
    pub srtt_us: u32,
    /// The kernel's windowed minimum, microseconds; 0 where not yet measured.
    pub min_rtt_us: u32,
    /// Congestion window, segments.
    pub snd_cwnd: u32,
    /// Slow start threshold, segments.
    pub snd_ssthresh: u32,
    /// Bytes in a full segment.
    pub mss: u32,
    /// Segments in flight.
    pub packets_out: u32,
    /// Retransmitted segments in flight.
    pub retrans_out: u32,
    /// Segments retransmitted over the connection's life.
    pub total_retrans: u32,
    /// Segments in flight that the kernel believes lost.
    pub lost_out: u32,
    /// Segments in flight that the peer acknowledged selectively.
    pub sacked_out: u32,
    /// Segments delivered in the latest rate sample; per [`Self::rate_interval_us`].
    pub rate_delivered: u32,
    /// Length of the latest rate sample, microseconds; 0 where there is none.
    pub rate_interval_us: u32,
    /// Data segments sent, retransmissions included; wraps.
    pub data_segs_out: u32,
    /// Retransmission timeouts that fired.
    pub rto_count: u32,
    /// Retransmit callbacks, each for one or more segments; events may be fewer, since their rate is limited.
    pub retransmit_events: u32,
    /// TCP state, as in `include/net/tcp_states.h` (1 is established).
    pub state: u32,
    pub local: Endpoint,
    pub remote: Endpoint,
}

impl ConnectionStats {
    /// Bytes/s of the latest rate sample, in whole segments as the kernel counts them; 0 where there is none.
    pub fn delivery_rate_bytes_per_s(&self) -> u64 {
        match self.rate_interval_us {
            0 => 0,
            interval_us => self.rate_delivered as u64 * self.mss as u64 * 1_000_000 / interval_us as u64,
        }
    }
}

/// One end of a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// IPv6 address in network byte order, word by word; IPv4 is mapped (`::ffff:a.b.c.d`).
    pub ip6: [u32; 4],
    /// Host byte order.
    pub port: u32,
}

impl Endpoint {
    /// From an IPv4 address in network byte order and a port in host byte order.
    #[inline(always)]
    pub fn v4(ip4: u32, port: u32) -> Self {
        Self { ip6: [0, 0, 0xffff_u32.to_be(), ip4], port }
    }

    /// The address, IPv4 where it is mapped.
    pub fn socket_addr(&self) -> SocketAddr {
        let mut octets = [0; 16];
        for (bytes, word) in octets.chunks_exact_mut(4).zip(self.ip6) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        SocketAddr::new(IpAddr::V6(Ipv6Addr::from(octets)).to_canonical(), self.port as u16)
    }
}

// SAFETY: repr(C), integers only, and no padding (checked below), so that every bit pattern is a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for ConnectionStats {}

const _: () = assert!(size_of::<ConnectionStats>() == 6 * 8 + 16 * 4 + 2 * size_of::<Endpoint>());
const _: () = assert!(size_of::<Endpoint>() == 20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_read_as_the_addresses_they_were_made_from() {
        let v4 = Endpoint::v4(u32::from_ne_bytes([192, 0, 2, 7]), 8000);
        assert_eq!(v4.socket_addr(), "192.0.2.7:8000".parse().unwrap());

        let octets = "2001:db8::1".parse::<Ipv6Addr>().unwrap().octets();
        let mut v6 = Endpoint { port: 65535, ..Default::default() };
        for (word, bytes) in v6.ip6.iter_mut().zip(octets.chunks_exact(4)) {
            *word = u32::from_ne_bytes(bytes.try_into().unwrap());
        }
        assert_eq!(v6.socket_addr(), "[2001:db8::1]:65535".parse().unwrap());
    }

    #[test]
    fn delivery_rate_is_segments_over_the_interval() {
        let stats = ConnectionStats { rate_delivered: 10, rate_interval_us: 20_000, mss: 1448, ..Default::default() };
        assert_eq!(stats.delivery_rate_bytes_per_s(), 724_000);
        assert_eq!(ConnectionStats::default().delivery_rate_bytes_per_s(), 0);
    }
}
