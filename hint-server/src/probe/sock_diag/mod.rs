//! Socket diagnostics (sock_diag(7)): every TCP connection of this network namespace with its TCP_INFO, without any privilege.
//! Connections in other network namespaces (containers with their own) are not seen; run the hint server beside the engine.

mod request;
pub mod wire;

use std::{io, os::fd::AsRawFd, time::Duration};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use tokenflow_hint_api::Source;

use super::{Identity, Look, Probe, ProbeCounters, ProbeError};
use wire::Message;

/// The kernel fills at most 32 KiB of a datagram in a dump.
const DATAGRAM_BYTES: usize = 64 << 10;
/// The kernel answers within the system call; one that does not must not hang the server.
const ANSWER_SECONDS: libc::time_t = 1;
/// Questions for single sockets per system call: their answers, of about 2 KB in the kernel's count, fit its default buffer of 208 KB.
const BATCH: usize = 64;

/// An open netlink socket and what to ask it for.
pub struct SockDiag {
    socket: Socket,
    ports: Vec<u16>,
    sequence: u32,
    datagram: Vec<u8>,
    counters: ProbeCounters,
}

impl SockDiag {
    /// Watches connections whose local port is among `ports`; all where there are none.
    ///
    /// # Errors
    /// Where the kernel offers no socket diagnostics (CONFIG_INET_DIAG, a sandbox that hides netlink).
    pub fn open(ports: &[u16]) -> Result<Self, ProbeError> {
        let socket = open().map_err(|error| ProbeError::SockDiag { call: "socket(AF_NETLINK)", error })?;
        let mut probe = Self {
            socket,
            ports: ports.to_vec(),
            sequence: 0,
            datagram: Vec::with_capacity(DATAGRAM_BYTES),
            counters: ProbeCounters::default(),
        };
        // Whether the kernel answers for TCP shows only when it is asked.
        probe.looks(Duration::ZERO, &mut Vec::new())?;
        Ok(probe)
    }

    /// Lists once more what changed while it was listed; a second time it is taken as it is.
    fn dump(&mut self, family: u8, at: Duration, looks: &mut Vec<Look>) -> Result<(), ProbeError> {
        let first = looks.len();
        if self.dump_once(family, at, looks)? == Dump::Interrupted {
            self.counters.dumps_interrupted += 1;
            looks.truncate(first);
            self.dump_once(family, at, looks)?;
        }
        Ok(())
    }

    /// Asks for single sockets, all of one batch in one call.
    fn ask(&mut self, batch: &[Identity], at: Duration, looks: &mut Vec<Look>) -> Result<(), ProbeError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = Vec::with_capacity(batch.len() * 72);
        batch.iter().for_each(|identity| request::append_one(&mut request, identity, self.sequence));
        self.socket.send(&request, 0).map_err(|error| ProbeError::SockDiag { call: "send", error })?;
        let mut answers = 0;
        while answers < batch.len() {
            self.receive().map_err(|error| ProbeError::SockDiag { call: "recv", error })?;
            wire::messages(&self.datagram, self.sequence, |message| {
                answers += 1;
                // One that is gone, or whose port another socket took, is answered with an error.
                if let Message::Socket(socket) = message
                    && wire::is_open(socket.state)
                {
                    looks.push(look(&socket, at));
                }
            })
            .ok_or(ProbeError::Malformed)?;
        }
        Ok(())
    }

    /// What a failed exchange left in the socket would mix with the next: begins anew.
    fn reopen_after<T>(&mut self, result: Result<T, ProbeError>) -> Result<T, ProbeError> {
        if let Err(ProbeError::SockDiag { error, .. }) = &result {
            if error.raw_os_error() == Some(libc::ENOBUFS) {
                self.counters.netlink_overruns += 1;
            }
            if let Ok(socket) = open() {
                self.socket = socket;
            }
        }
        result
    }

    fn dump_once(&mut self, family: u8, at: Duration, looks: &mut Vec<Look>) -> Result<Dump, ProbeError> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request::dump(family, self.sequence, &self.ports);
        self.socket.send(&request, 0).map_err(|error| ProbeError::SockDiag { call: "send", error })?;
        let mut dump = Dump::Whole;
        loop {
            self.receive().map_err(|error| ProbeError::SockDiag { call: "recv", error })?;
            let mut end = None;
            let ports = &self.ports;
            wire::messages(&self.datagram, self.sequence, |message| match message {
                // The filter is the kernel's economy, not what correctness rests on.
                Message::Socket(socket) if ports.is_empty() || ports.contains(&socket.identity.local.port()) => {
                    looks.push(look(&socket, at))
                }
                Message::Socket(_) | Message::Other => {}
                Message::Interrupted => dump = Dump::Interrupted,
                Message::Done => end = Some(Ok(())),
                Message::Error(error) => end = Some(Err(error)),
            })
            .ok_or(ProbeError::Malformed)?;
            if let Some(end) = end {
                return end.map(|()| dump).map_err(|error| ProbeError::SockDiag { call: "dump", error });
            }
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        loop {
            self.datagram.clear();
            match self.socket.recv(&mut self.datagram, 0) {
                // With a time limit the kernel does not go on by itself after a signal.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, format!("the kernel did not answer within {ANSWER_SECONDS} s")));
                }
                result => return result.map(|_| ()),
            }
        }
    }
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    limit_waiting(&socket)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

fn look(socket: &wire::Socket, at: Duration) -> Look {
    Look { identity: socket.identity, measurement: socket.info.measurement(at, socket.undelivered_bytes.into()), source: Source::SockDiag }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dump {
    Whole,
    Interrupted,
}

fn limit_waiting(socket: &Socket) -> io::Result<()> {
    let limit = libc::timeval { tv_sec: ANSWER_SECONDS, tv_usec: 0 };
    let length = size_of_val(&limit) as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel reads `length` bytes of a value that lives through the call.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVTIMEO, (&raw const limit).cast(), length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Probe for SockDiag {
    fn source(&self) -> Source {
        Source::SockDiag
    }

    fn looks(&mut self, at: Duration, looks: &mut Vec<Look>) -> Result<(), ProbeError> {
        let result = self.dump(libc::AF_INET as u8, at, looks).and_then(|()| match self.dump(libc::AF_INET6 as u8, at, looks) {
            // A kernel without IPv6 has nothing to list.
            Err(ProbeError::SockDiag { call: "dump", error }) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            result => result,
        });
        self.reopen_after(result)
    }

    fn looks_at(&mut self, at: Duration, which: &[Identity], looks: &mut Vec<Look>) -> Result<(), ProbeError> {
        let result = which.chunks(BATCH).try_for_each(|batch| self.ask(batch, at, looks));
        self.reopen_after(result)
    }

    fn counters(&self) -> ProbeCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn answers_that_do_not_fit_the_buffer_are_counted_and_survived() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _pairs: Vec<_> = (0..BATCH).map(|_| (TcpStream::connect(address).unwrap(), listener.accept().unwrap().0)).collect();
        let mut probe = SockDiag::open(&[address.port()]).unwrap();
        let mut looks = Vec::new();
        probe.looks(Duration::ZERO, &mut looks).unwrap();
        let which: Vec<Identity> = looks.iter().map(|look| look.identity).collect();
        assert_eq!(which.len(), BATCH);

        let smallest: libc::c_int = 1;
        let length = size_of_val(&smallest) as libc::socklen_t;
        // SAFETY: the descriptor is open, and the kernel reads `length` bytes of a value that lives through the call.
        let result =
            unsafe { libc::setsockopt(probe.socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, (&raw const smallest).cast(), length) };
        assert_eq!(result, 0);
        let error = probe.looks_at(Duration::ZERO, &which, &mut Vec::new()).unwrap_err();
        assert!(matches!(&error, ProbeError::SockDiag { error, .. } if error.raw_os_error() == Some(libc::ENOBUFS)), "{error}");
        assert_eq!(probe.counters().netlink_overruns, 1);

        let mut again = Vec::new();
        probe.looks_at(Duration::ZERO, &which, &mut again).unwrap();
        assert_eq!(again.len(), BATCH, "a new socket answers");
        probe.looks(Duration::ZERO, &mut again).unwrap();
        assert_eq!(again.len(), 2 * BATCH);
    }
}
