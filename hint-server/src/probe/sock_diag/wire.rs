//! The answer: netlink messages, each with `struct inet_diag_msg` and attributes (linux/netlink.h, linux/inet_diag.h).
//! Our own parser, since it must hand on every byte of TCP_INFO, whatever its length; it trusts no length that it reads.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokenflow_score::{TcpInfo, parse_tcp_info};

use super::request::STATES;
use crate::probe::Identity;

pub(super) const NLMSG_HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Something changed while the kernel listed it: the list may lack sockets.
const NLM_F_DUMP_INTR: u16 = 0x10;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
pub(super) const INET_DIAG_INFO: u16 = 2;
/// `struct inet_diag_msg`.
const INET_DIAG_MSG: usize = 72;

/// One message of a dump.
#[derive(Debug)]
pub enum Message {
    Socket(Socket),
    /// A socket without what we asked for, or a message of a kind that we do not know.
    Other,
    /// Comes before a message that has this flag.
    Interrupted,
    Done,
    Error(io::Error),
}

/// One socket's diagnostics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    pub identity: Identity,
    /// `idiag_state`, as in `include/net/tcp_states.h`.
    pub state: u8,
    /// `idiag_wqueue`: bytes written and not acknowledged.
    pub undelivered_bytes: u32,
    pub info: TcpInfo,
}

/// Established, or closed by the client in one direction only: dumps are asked for these alone.
pub(super) fn is_open(state: u8) -> bool {
    STATES & 1_u32.checked_shl(state.into()).unwrap_or(0) != 0
}

pub(super) fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// Calls `each` with every message in one datagram that carries `sequence`; `None` where a length leads out of the datagram.
pub fn messages(mut datagram: &[u8], sequence: u32, mut each: impl FnMut(Message)) -> Option<()> {
    while !datagram.is_empty() {
        let length = u32_at(datagram, 0)? as usize;
        let payload = datagram.get(NLMSG_HEADER..length)?;
        if u32_at(datagram, 8)? == sequence {
            if u16_at(datagram, 6)? & NLM_F_DUMP_INTR != 0 {
                each(Message::Interrupted);
            }
            each(match u16_at(datagram, 4)? {
                NLMSG_DONE => Message::Done,
                NLMSG_ERROR => Message::Error(io::Error::from_raw_os_error(u32_at(payload, 0)?.cast_signed().wrapping_neg())),
                _ => socket(payload).map_or(Message::Other, Message::Socket),
            });
        }
        datagram = datagram.get(align(length)..).unwrap_or_default();
    }
    Some(())
}

fn socket(message: &[u8]) -> Option<Socket> {
    let attributes = message.get(INET_DIAG_MSG..)?;
    let family = message[0];
    let cookie = u64::from(u32_at(message, 44)?) | u64::from(u32_at(message, 48)?) << 32;
    let identity = Identity { cookie, local: address(family, message, 8, 4)?, peer: address(family, message, 24, 6)? };
    let info = parse_tcp_info(attribute(attributes, INET_DIAG_INFO)?)?;
    Some(Socket { identity, state: message[1], undelivered_bytes: u32_at(message, 60)?, info })
}

/// IPv4 where the address is mapped.
fn address(family: u8, message: &[u8], ip_at: usize, port_at: usize) -> Option<SocketAddr> {
    let octets: [u8; 16] = message.get(ip_at..ip_at + 16)?.try_into().ok()?;
    let port = u16::from_be_bytes(message.get(port_at..port_at + 2)?.try_into().ok()?);
    let ip = match family {
        AF_INET => IpAddr::V4(Ipv4Addr::from(*octets.first_chunk::<4>()?)),
        AF_INET6 => IpAddr::V6(Ipv6Addr::from(octets)).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn attribute(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16_at(attributes, 0)?);
        let value = attributes.get(4..length)?;
        if u16_at(attributes, 2)? == kind {
            return Some(value);
        }
        attributes = attributes.get(align(length)..)?;
    }
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(offset..offset + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn message(kind: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = ((NLMSG_HEADER + payload.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes.resize(align(bytes.len()), 0);
        bytes
    }

    fn diag(local: SocketAddr, peer: SocketAddr, cookie: u64, wqueue: u32, attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let octets = |ip: IpAddr| match ip {
            IpAddr::V4(v4) => {
                let mut octets = v4.octets().to_vec();
                octets.resize(16, 0);
                octets
            }
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let mut bytes = vec![if local.is_ipv4() { AF_INET } else { AF_INET6 }, 1, 0, 0];
        bytes.extend(local.port().to_be_bytes());
        bytes.extend(peer.port().to_be_bytes());
        bytes.extend(octets(local.ip()));
        bytes.extend(octets(peer.ip()));
        bytes.extend([0; 4]);
        bytes.extend((cookie as u32).to_ne_bytes());
        bytes.extend(((cookie >> 32) as u32).to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(wqueue.to_ne_bytes());
        bytes.extend([0; 8]);
        for (kind, value) in attributes {
            bytes.extend(((4 + value.len()) as u16).to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(value);
            bytes.resize(align(bytes.len()), 0);
        }
        bytes
    }

    fn all(datagram: &[u8]) -> Option<Vec<Message>> {
        let mut found = Vec::new();
        messages(datagram, 7, |message| found.push(message)).map(|()| found)
    }

    fn tcp_info(srtt_us: u32) -> Vec<u8> {
        let mut info = vec![0; 248];
        info[68..72].copy_from_slice(&srtt_us.to_ne_bytes());
        info
    }

    #[test]
    fn reads_sockets_past_other_attributes_and_other_dumps() {
        let (local, peer) = ("[::ffff:192.0.2.1]:8000".parse().unwrap(), "[::ffff:192.0.2.2]:40000".parse().unwrap());
        let socket = diag(local, peer, 0x1234_5678_9abc, 6600, &[(1, vec![1; 7]), (INET_DIAG_INFO, tcp_info(99)), (8, vec![0])]);
        let datagram = [message(20, 6, &socket), message(20, 7, &socket), message(3, 7, &[0; 4])].concat();
        let found = all(&datagram).unwrap();
        let [Message::Socket(socket), Message::Done] = &found[..] else { panic!("{found:?}") };
        assert_eq!(socket.identity.cookie, 0x1234_5678_9abc);
        assert_eq!(socket.identity.local.to_string(), "192.0.2.1:8000");
        assert_eq!(socket.identity.peer.to_string(), "192.0.2.2:40000");
        assert_eq!((socket.undelivered_bytes, socket.info.srtt_us), (6600, 99));
    }

    #[test]
    fn an_interrupted_dump_is_told() {
        let mut done = message(NLMSG_DONE, 7, &[0; 4]);
        done[6..8].copy_from_slice(&(NLM_F_DUMP_INTR | 0x2).to_ne_bytes());
        assert!(matches!(all(&done).unwrap()[..], [Message::Interrupted, Message::Done]));
    }

    #[test]
    fn an_error_keeps_its_number() {
        let found = all(&message(NLMSG_ERROR, 7, &(-1i32).to_ne_bytes())).unwrap();
        assert!(matches!(&found[..], [Message::Error(error)] if error.raw_os_error() == Some(1)));
    }

    #[test]
    fn a_socket_without_tcp_info_is_passed_over() {
        let address = "127.0.0.1:1".parse().unwrap();
        let found = all(&message(20, 7, &diag(address, address, 1, 0, &[(1, vec![0; 4])]))).unwrap();
        assert!(matches!(found[..], [Message::Other]));
    }

    proptest! {
        #[test]
        fn no_bytes_lead_astray(bytes in vec(any::<u8>(), 0..300)) {
            let _ = all(&bytes);
            let _ = all(&message(20, 7, &bytes));
        }

        #[test]
        fn no_broken_attribute_leads_astray(cut in 0usize..400, at in 0usize..400, byte in any::<u8>()) {
            let address = "127.0.0.1:1".parse().unwrap();
            let mut bytes = message(20, 7, &diag(address, address, 1, 0, &[(9, vec![0; 5]), (INET_DIAG_INFO, tcp_info(1))]));
            if let Some(slot) = bytes.get_mut(at) {
                *slot = byte;
            }
            bytes.truncate(cut);
            let _ = all(&bytes);
        }
    }
}
