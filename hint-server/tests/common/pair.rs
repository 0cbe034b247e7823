//! Connections to look at, and a way to wait for what they cause.

// No file of tests uses all of it.
#![allow(dead_code)]

use std::{
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

/// Both ends of a connection to a port of its own.
pub struct Pair {
    pub server: TcpStream,
    pub client: TcpStream,
}

impl Pair {
    pub fn new(listen: &str) -> Self {
        let listener = TcpListener::bind(listen).unwrap();
        Self::through(&listener, listener.local_addr().unwrap())
    }

    pub fn through(listener: &TcpListener, address: SocketAddr) -> Self {
        let client = TcpStream::connect(address).unwrap();
        let server = listener.accept().unwrap().0;
        Self { server, client }
    }

    pub fn port(&self) -> u16 {
        self.server.local_addr().unwrap().port()
    }

    pub fn peer(&self) -> SocketAddr {
        self.client.local_addr().unwrap()
    }

    pub fn cookie(&self) -> u64 {
        socket2::SockRef::from(&self.server).cookie().unwrap()
    }

    /// Writes until the socket takes no more; the client reads nothing.
    pub fn fill(&self) {
        self.server.set_nonblocking(true).unwrap();
        while (&self.server).write(&[7; 4096]).is_ok() {}
    }
}

/// Waits until `condition` holds, for at most a minute.
pub fn until<T>(mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "did not happen in a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
}
