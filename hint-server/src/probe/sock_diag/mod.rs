//! Socket diagnostics (sock_diag(7)): every TCP connection of this network namespace with its TCP_INFO, without any privilege.
//! Connections in other network namespaces (containers with their own) are not seen; run the hint server beside the engine.

mod request;
mod wire;

use std::{io, time::Duration};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use tokenflow_hint_api::Source;

use super::{Look, Probe, ProbeError};
use wire::Message;

/// The kernel fills at most 32 KiB of a datagram in a dump.
const DATAGRAM_BYTES: usize = 64 << 10;

/// An open netlink socket and what to ask it for.
pub struct SockDiag {
    socket: Socket,
    ports: Vec<u16>,
    sequence: u32,
    datagram: Vec<u8>,
}

impl SockDiag {
    /// Watches connections whose local port is among `ports`; all where there are none.
    ///
    /// # Errors
    /// Where the kernel offers no socket diagnostics (CONFIG_INET_DIAG, a sandbox that hides netlink).
    pub fn open(ports: &[u16]) -> Result<Self, ProbeError> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        let socket = open().map_err(|error| ProbeError::SockDiag { call: "socket(AF_NETLINK)", error })?;
        let mut probe = Self { socket, ports: ports.to_vec(), sequence: 0, datagram: Vec::with_capacity(DATAGRAM_BYTES) };
        // Whether the kernel answers for TCP shows only when it is asked.
        probe.looks(Duration::ZERO, &mut Vec::new())?;
        Ok(probe)
    }

    fn dump(&mut self, family: u8, at: Duration, looks: &mut Vec<Look>) -> Result<(), ProbeError> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request::dump(family, self.sequence, &self.ports);
        self.socket.send(&request, 0).map_err(|error| ProbeError::SockDiag { call: "send", error })?;
        loop {
            self.datagram.clear();
            self.socket.recv(&mut self.datagram, 0).map_err(|error| ProbeError::SockDiag { call: "recv", error })?;
            let mut end = None;
            let ports = &self.ports;
            wire::messages(&self.datagram, self.sequence, |message| match message {
                // The filter is the kernel's economy, not what correctness rests on.
                Message::Socket(socket) if ports.is_empty() || ports.contains(&socket.identity.local.port()) => looks.push(Look {
                    identity: socket.identity,
                    measurement: socket.info.measurement(at, socket.undelivered_bytes.into()),
                    source: Source::SockDiag,
                }),
                Message::Socket(_) | Message::Other => {}
                Message::Done => end = Some(Ok(())),
                Message::Error(error) => end = Some(Err(error)),
            })
            .ok_or(ProbeError::Malformed)?;
            if let Some(end) = end {
                return end.map_err(|error| ProbeError::SockDiag { call: "dump", error });
            }
        }
    }
}

impl Probe for SockDiag {
    fn source(&self) -> Source {
        Source::SockDiag
    }

    fn looks(&mut self, at: Duration, looks: &mut Vec<Look>) -> Result<(), ProbeError> {
        self.dump(libc::AF_INET as u8, at, looks)?;
        match self.dump(libc::AF_INET6 as u8, at, looks) {
            // A kernel without IPv6 has nothing to list.
            Err(ProbeError::SockDiag { call: "dump", error }) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            result => result,
        }
    }
}
