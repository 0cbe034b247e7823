//! The kernel's `struct tcp_info` (linux/tcp.h) from the bytes that `getsockopt(TCP_INFO)` or socket diagnostics returned.
//! The struct grew over the years; fields that a kernel does not have are zero or `None`, bytes that we do not know are skipped.

use std::time::Duration;

use crate::Measurement;

/// Up to `tcpi_total_retrans`, which every kernel since 2.6 has.
const OLDEST_LENGTH: usize = 104;

/// The fields that health is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// `tcpi_state`; 1 is ESTABLISHED.
    pub state: u8,
    /// `tcpi_retransmits`: timeouts since the last progress.
    pub consecutive_rtos: u8,
    /// Whether the latest rate sample was limited by the application; `None` where there is no sample.
    pub app_limited: Option<bool>,
    /// Smoothed round-trip time, microseconds; 0 where not yet measured.
    pub srtt_us: u32,
    /// Windowed minimum, microseconds; 0 where not yet measured.
    pub min_rtt_us: u32,
    pub total_retrans: u32,
    pub bytes_acked: u64,
    /// Data segments sent, retransmissions included; 0 before Linux 4.6.
    pub data_segs_out: u32,
    /// Bytes/s; 0 where there is no sample.
    pub delivery_rate: u64,
    /// Timeouts since the connection began; `None` before Linux 6.7.
    pub total_rto: Option<u16>,
}

/// Reads a `struct tcp_info` of whatever length the kernel gave, in native byte order; `None` if it is shorter than any kernel's.
pub fn parse_tcp_info(bytes: &[u8]) -> Option<TcpInfo> {
    if bytes.len() < OLDEST_LENGTH {
        return None;
    }
    let delivery_rate = u64_at(bytes, 160).unwrap_or(0);
    // The first bit field of the byte is its lowest bit or its highest.
    let app_limited_bit = if cfg!(target_endian = "little") { 0x01 } else { 0x80 };
    Some(TcpInfo {
        state: bytes[0],
        consecutive_rtos: bytes[2],
        app_limited: (delivery_rate > 0).then_some(bytes[7] & app_limited_bit != 0),
        srtt_us: u32_at(bytes, 68)?,
        // The kernel says "all ones" before the first sample.
        min_rtt_us: u32_at(bytes, 148).filter(|&us| us != u32::MAX).unwrap_or(0),
        total_retrans: u32_at(bytes, 100)?,
        bytes_acked: u64_at(bytes, 120).unwrap_or(0),
        data_segs_out: u32_at(bytes, 156).unwrap_or(0),
        delivery_rate,
        total_rto: u16_at(bytes, 240),
    })
}

impl TcpInfo {
    /// This look as a [`Measurement`]. `undelivered_bytes` is the send queue (`SIOCOUTQ`, or `idiag_wqueue` of socket diagnostics).
    pub fn measurement(&self, at: Duration, undelivered_bytes: u64) -> Measurement {
        Measurement {
            at,
            srtt_us: self.srtt_us,
            min_rtt_us: self.min_rtt_us,
            data_segs_out: self.data_segs_out.into(),
            retransmits: self.total_retrans.into(),
            // Before 6.7 the count since the last progress stands in: it rises with every timeout, and its fall counts nothing.
            rtos: self.total_rto.map_or(self.consecutive_rtos.into(), u64::from),
            bytes_acked: self.bytes_acked,
            undelivered_bytes,
            delivery_rate_bytes_per_s: self.delivery_rate,
            app_limited: self.app_limited,
        }
    }
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(offset..offset + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(offset..offset + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
        bytes[offset..offset + value.len()].copy_from_slice(value);
    }

    #[test]
    fn reads_the_fields_where_the_kernel_puts_them() {
        let mut bytes = vec![0; 248];
        put(&mut bytes, 0, &[1]);
        put(&mut bytes, 7, &[if cfg!(target_endian = "little") { 1 } else { 0x80 }]);
        put(&mut bytes, 68, &125_000u32.to_ne_bytes());
        put(&mut bytes, 100, &7u32.to_ne_bytes());
        put(&mut bytes, 120, &123_456_789_012u64.to_ne_bytes());
        put(&mut bytes, 148, &20u32.to_ne_bytes());
        put(&mut bytes, 156, &99u32.to_ne_bytes());
        put(&mut bytes, 160, &5125u64.to_ne_bytes());
        put(&mut bytes, 240, &3u16.to_ne_bytes());
        let info = parse_tcp_info(&bytes).unwrap();
        let look = info.measurement(Duration::from_secs(1), 6600);
        assert_eq!(
            look,
            Measurement {
                at: Duration::from_secs(1),
                srtt_us: 125_000,
                min_rtt_us: 20,
                data_segs_out: 99,
                retransmits: 7,
                rtos: 3,
                bytes_acked: 123_456_789_012,
                undelivered_bytes: 6600,
                delivery_rate_bytes_per_s: 5125,
                app_limited: Some(true),
            }
        );
    }

    #[test]
    fn an_unmeasured_minimum_is_zero() {
        let mut bytes = vec![0; 248];
        put(&mut bytes, 148, &u32::MAX.to_ne_bytes());
        assert_eq!(parse_tcp_info(&bytes).unwrap().min_rtt_us, 0);
    }

    #[test]
    fn an_old_kernels_struct_lacks_the_newer_fields() {
        let mut bytes = vec![0; OLDEST_LENGTH];
        put(&mut bytes, 2, &[2]);
        let info = parse_tcp_info(&bytes).unwrap();
        assert_eq!((info.total_rto, info.app_limited), (None, None));
        assert_eq!(info.measurement(Duration::ZERO, 0).rtos, 2);
        assert_eq!(parse_tcp_info(&bytes[1..]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_of_any_length_are_read_or_refused(bytes in vec(any::<u8>(), 0..400)) {
            let info = parse_tcp_info(&bytes);
            prop_assert_eq!(info.is_some(), bytes.len() >= OLDEST_LENGTH);
            if let Some(info) = info {
                let _ = info.measurement(Duration::ZERO, 1);
            }
        }

        #[test]
        fn a_longer_struct_reads_the_same(mut bytes in vec(any::<u8>(), 248), tail in vec(any::<u8>(), 0..64)) {
            let info = parse_tcp_info(&bytes);
            bytes.extend(tail);
            prop_assert_eq!(parse_tcp_info(&bytes), info);
        }
    }
}
