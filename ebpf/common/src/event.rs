/// Something that happened to a connection and should not wait for the next look at the map.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// `SO_COOKIE` of the socket.
    pub cookie: u64,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub at_ns: u64,
    /// An [`EventKind`]; see [`Event::kind`].
    pub kind: u32,
    /// What [`EventKind`] says of it.
    pub value: u32,
}

/// What happened, and what [`Event::value`] then means.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The handshake completed and the connection is tracked. Value: local port.
    Established = 1,
    /// Segments were retransmitted; limited in rate per connection. Value: segments retransmitted over the connection's life.
    Retransmit = 2,
    /// The retransmission timer fired. Value: how often it has over the connection's life.
    Rto = 3,
    /// The connection is gone and so is its map entry. Value: the state it left, as in `include/net/tcp_states.h`.
    Closed = 4,
}

impl Event {
    /// Bytes of one event in the ring.
    pub const SIZE: usize = size_of::<Self>();

    #[inline(always)]
    pub fn new(kind: EventKind, cookie: u64, at_ns: u64, value: u32) -> Self {
        Self { cookie, at_ns, kind: kind as u32, value }
    }

    /// `None` for a kind that this version does not know.
    pub fn kind(&self) -> Option<EventKind> {
        Some(match self.kind {
            1 => EventKind::Established,
            2 => EventKind::Retransmit,
            3 => EventKind::Rto,
            4 => EventKind::Closed,
            _ => return None,
        })
    }

    /// Reads one item of the ring; `None` where it has another length.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::SIZE] = bytes.try_into().ok()?;
        let (cookie, rest) = bytes.split_first_chunk()?;
        let (at_ns, rest) = rest.split_first_chunk()?;
        let (kind, rest) = rest.split_first_chunk()?;
        let (value, _) = rest.split_first_chunk()?;
        Some(Self {
            cookie: u64::from_ne_bytes(*cookie),
            at_ns: u64::from_ne_bytes(*at_ns),
            kind: u32::from_ne_bytes(*kind),
            value: u32::from_ne_bytes(*value),
        })
    }
}

const _: () = assert!(Event::SIZE == 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_the_ring() {
        let event = Event::new(EventKind::Rto, 0x0102_0304_0506_0708, 99, 3);
        let mut bytes = [0; Event::SIZE];
        bytes[..8].copy_from_slice(&event.cookie.to_ne_bytes());
        bytes[8..16].copy_from_slice(&event.at_ns.to_ne_bytes());
        bytes[16..20].copy_from_slice(&event.kind.to_ne_bytes());
        bytes[20..].copy_from_slice(&event.value.to_ne_bytes());
        assert_eq!(Event::from_bytes(&bytes), Some(event));
        assert_eq!(event.kind(), Some(EventKind::Rto));
        assert_eq!(Event::from_bytes(&bytes[1..]), None);
        assert_eq!(Event { kind: 77, ..event }.kind(), None);
    }
}
