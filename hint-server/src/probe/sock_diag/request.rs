//! The question: a dump of TCP sockets with TCP_INFO, filtered by local port inside the kernel (linux/inet_diag.h).

use std::net::{IpAddr, SocketAddr};

use super::wire::{INET_DIAG_INFO, NLMSG_HEADER, align};
use crate::probe::Identity;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const INET_DIAG_REQ_BYTECODE: u16 = 1;
const IPPROTO_TCP: u8 = 6;

/// A client may close its sending half and go on reading, so CLOSE_WAIT (8) is looked at beside ESTABLISHED (1).
pub(super) const STATES: u32 = 1 << 1 | 1 << 8;

/// `struct inet_diag_req_v2`.
const REQUEST: usize = 56;

/// `enum` of `struct inet_diag_bc_op`: each compares the local port with that of the operation behind it.
const JMP: u8 = 1;
const S_GE: u8 = 2;
const S_LE: u8 = 3;
const OP: usize = 4;

/// A dump of one address family's sockets whose local port is among `ports` (all where there are none).
pub(super) fn dump(family: u8, sequence: u32, ports: &[u16]) -> Vec<u8> {
    let filter = port_filter(ports);
    let mut message = Vec::with_capacity(NLMSG_HEADER + REQUEST + 4 + filter.len());
    header(&mut message, NLM_F_REQUEST | NLM_F_DUMP, sequence, family);
    message.resize(REQUEST_END, 0);

    if !filter.is_empty() {
        message.extend(((4 + filter.len()) as u16).to_ne_bytes());
        message.extend(INET_DIAG_REQ_BYTECODE.to_ne_bytes());
        message.extend(filter);
    }
    message.resize(align(message.len()), 0);
    let length = message.len() as u32;
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message
}

const REQUEST_END: usize = NLMSG_HEADER + REQUEST;

/// The netlink header, whose length is yet to come, and the request as far as its socket id.
fn header(message: &mut Vec<u8>, flags: u16, sequence: u32, family: u8) {
    message.extend([0; 4]);
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend([0; 4]);
    message.extend([family, IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), 0]);
    message.extend(STATES.to_ne_bytes());
}

/// Appends the question for one socket. The kernel answers with the socket, or with an error where none has this cookie.
pub(super) fn append_one(messages: &mut Vec<u8>, identity: &Identity, sequence: u32) {
    let begin = messages.len();
    let family = if identity.peer.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    header(messages, NLM_F_REQUEST, sequence, family as u8);
    messages.extend(identity.local.port().to_be_bytes());
    messages.extend(identity.peer.port().to_be_bytes());
    messages.extend(octets(identity.local));
    messages.extend(octets(identity.peer));
    // Any interface.
    messages.extend([0; 4]);
    messages.extend((identity.cookie as u32).to_ne_bytes());
    messages.extend(((identity.cookie >> 32) as u32).to_ne_bytes());
    debug_assert_eq!(messages.len() - begin, REQUEST_END);
    messages[begin..begin + 4].copy_from_slice(&(REQUEST_END as u32).to_ne_bytes());
}

fn octets(address: SocketAddr) -> [u8; 16] {
    match address.ip() {
        IpAddr::V4(v4) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&v4.octets());
            octets
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// `port == a || port == b ...` in the kernel's filter language, where a socket passes that ends exactly at the end of the program: every
/// block is `>= port`, `<= port`, jump to the end; a comparison that fails goes on at the next block, and of the last beyond the end.
fn port_filter(ports: &[u16]) -> Vec<u8> {
    const COMPARISON: usize = 2 * OP;
    const BLOCK: usize = 2 * COMPARISON + OP;
    let mut code = Vec::with_capacity(ports.len() * BLOCK);
    for (index, &port) in ports.iter().enumerate() {
        let behind = (ports.len() - index - 1) * BLOCK;
        let next = if behind == 0 { BLOCK + OP } else { BLOCK };
        for (operator, offset) in [(S_GE, 0), (S_LE, COMPARISON)] {
            op(&mut code, operator, COMPARISON as u8, (next - offset) as u16);
            op(&mut code, 0, 0, port);
        }
        op(&mut code, JMP, OP as u8, (OP + behind) as u16);
    }
    code
}

fn op(code: &mut Vec<u8>, operator: u8, yes: u8, no: u16) {
    code.extend([operator, yes]);
    code.extend(no.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// `inet_diag_bc_run` of net/ipv4/inet_diag.c, for the operations in use.
    fn passes(code: &[u8], port: u16) -> bool {
        let mut at = 0i64;
        while at < code.len() as i64 {
            let op = &code[at as usize..];
            let operand = || u16::from_ne_bytes([op[6], op[7]]);
            let yes = match op[0] {
                S_GE => port >= operand(),
                S_LE => port <= operand(),
                JMP => false,
                other => panic!("operation {other}"),
            };
            at += if yes { i64::from(op[1]) } else { i64::from(u16::from_ne_bytes([op[2], op[3]])) };
        }
        at == code.len() as i64
    }

    proptest! {
        #[test]
        fn exactly_the_listed_ports_pass(ports in vec(any::<u16>(), 1..16), other in any::<u16>()) {
            let code = port_filter(&ports);
            for &port in &ports {
                prop_assert!(passes(&code, port));
            }
            prop_assert_eq!(passes(&code, other), ports.contains(&other));
        }

        #[test]
        fn lengths_are_what_netlink_asks_for(ports in vec(any::<u16>(), 0..16)) {
            let message = dump(2, 1, &ports);
            prop_assert_eq!(message.len() % 4, 0);
            prop_assert_eq!(u32::from_ne_bytes(message[..4].try_into().unwrap()) as usize, message.len());
        }
    }
}
