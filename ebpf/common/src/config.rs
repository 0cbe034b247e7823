/// Local ports that one program can watch.
pub const MAX_WATCH_PORTS: usize = 16;

/// What the loader tells the program; written before it is loaded and constant from then on.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// A connection's measurements are refreshed at most this often, nanoseconds; ACKs in between cost one map lookup.
    pub update_interval_ns: u64,
    /// A connection sends at most one retransmit event in this time, nanoseconds.
    pub event_interval_ns: u64,
    /// How many of [`Self::watch_ports`] count; 0 watches every connection.
    pub watch_port_count: u32,
    /// Local ports, host byte order.
    pub watch_ports: [u16; MAX_WATCH_PORTS],
    /// Makes every byte part of a field.
    pub reserved: u32,
}

impl Config {
    pub const DEFAULT: Self = Self {
        update_interval_ns: 1_000_000,
        event_interval_ns: 10_000_000,
        watch_port_count: 0,
        watch_ports: [0; MAX_WATCH_PORTS],
        reserved: 0,
    };

    /// The default intervals with these ports; `None` where there are more than [`MAX_WATCH_PORTS`].
    pub fn watching(ports: &[u16]) -> Option<Self> {
        let mut config = Self { watch_port_count: ports.len() as u32, ..Self::DEFAULT };
        config.watch_ports.get_mut(..ports.len())?.copy_from_slice(ports);
        Some(config)
    }

    /// Whether a connection with this local port is tracked.
    #[inline(always)]
    pub fn watches(&self, local_port: u32) -> bool {
        if self.watch_port_count == 0 {
            return true;
        }
        let mut index = 0;
        while index < MAX_WATCH_PORTS && (index as u32) < self.watch_port_count {
            if self.watch_ports[index] as u32 == local_port {
                return true;
            }
            index += 1;
        }
        false
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::DEFAULT
    }
}

// SAFETY: repr(C), integers only, and no padding (checked below), so that every bit pattern is a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Config {}

const _: () = assert!(size_of::<Config>() == 8 + 8 + 4 + 2 * MAX_WATCH_PORTS + 4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watches_the_listed_ports_or_all() {
        assert!(Config::watching(&[]).unwrap().watches(1));
        let two = Config::watching(&[8000, 8001]).unwrap();
        assert!(two.watches(8000) && two.watches(8001));
        assert!(!two.watches(0) && !two.watches(8002));
        assert!(Config::watching(&[7; MAX_WATCH_PORTS]).unwrap().watches(7));
        assert_eq!(Config::watching(&[7; MAX_WATCH_PORTS + 1]), None);
    }
}
