//! A plain reverse proxy between engine and clients: ends TCP on both sides, forwards bytes through a small buffer, and says for whom
//! (`X-Forwarded-For` and `Forwarded`, with port), as gateways in front of an engine do.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, ensure};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Between a read from the engine and the write to the client.
const BUFFER_BYTES: usize = 4096;

/// Of each socket on the stream's way; the kernel doubles it for its own bookkeeping.
const SOCKET_BUFFER_BYTES: usize = 16_384;

const LONGEST_HEAD: u64 = 65_536;

/// Ends when dropped; connections that it has end with their peers.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on a free port of every address of the calling thread's namespace and forwards to `engine`.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(engine: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("0.0.0.0", 0)).context("the proxy cannot listen")?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let acceptor = std::thread::Builder::new().name("proxy".to_owned()).spawn(move || {
            for client in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(client) = client {
                    // A peer that goes away ends its connection only.
                    std::thread::spawn(move || serve(client, engine));
                }
            }
        })?;
        Ok(Self { address, stop, acceptor: Some(acceptor) })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the acceptor.
        let woken =
            TcpStream::connect_timeout(&(std::net::Ipv4Addr::LOCALHOST, self.address.port()).into(), Duration::from_secs(1)).is_ok();
        if let Some(acceptor) = self.acceptor.take().filter(|_| woken) {
            let _ = acceptor.join();
        }
    }
}

/// One request of one client, and the response.
fn serve(client: TcpStream, engine: SocketAddr) -> anyhow::Result<()> {
    let peer = client.peer_addr()?;
    SockRef::from(&client).set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    client.set_nodelay(true)?;
    let mut request = BufReader::new(client.try_clone()?);
    let head = forwarded_head(&mut request, peer)?;
    let upstream = Socket::new(Domain::for_address(engine), Type::STREAM, Some(Protocol::TCP))?;
    upstream.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    upstream.connect(&engine.into())?;
    let mut upstream = TcpStream::from(upstream);
    upstream.write_all(head.as_bytes())?;
    let mut to_engine = upstream.try_clone()?;
    std::thread::spawn(move || {
        let _ = copy(&mut request, &mut to_engine);
        // The client is gone, or has said all: the engine sees which.
        let _ = to_engine.shutdown(Shutdown::Write);
    });
    let mut to_client = client;
    let copied = copy(&mut upstream, &mut to_client);
    let _ = upstream.shutdown(Shutdown::Both);
    let _ = to_client.shutdown(Shutdown::Both);
    Ok(copied?)
}

/// The request's head with the client's address added; one request for each connection, so that no second head needs to be found.
fn forwarded_head(request: &mut impl BufRead, peer: SocketAddr) -> anyhow::Result<String> {
    let mut head = String::new();
    let mut limited = request.take(LONGEST_HEAD);
    loop {
        let mut line = String::new();
        ensure!(limited.read_line(&mut line)? > 0, "the request ended inside its head");
        if line.trim_end().is_empty() {
            break;
        }
        if !line.to_ascii_lowercase().starts_with("connection:") {
            head.push_str(&line);
        }
    }
    head.push_str(&format!("X-Forwarded-For: {peer}\r\nForwarded: for=\"{peer}\"\r\nConnection: close\r\n\r\n"));
    Ok(head)
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            n => to.write_all(&buffer[..n])?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_names_the_client() {
        let peer = "10.1.2.3:4567".parse().unwrap();
        let mut request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\nbody".as_bytes();
        let head = forwarded_head(&mut request, peer).unwrap();
        assert_eq!(
            head,
            "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 10.1.2.3:4567\r\nForwarded: for=\"10.1.2.3:4567\"\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(request, b"body");
        assert!(forwarded_head(&mut "GET / HTTP/1.1\r\nHost".as_bytes(), peer).is_err());
    }
}
