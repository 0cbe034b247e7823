use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use parking_lot::Mutex;
use tokenflow_score::parse_tcp_info;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::local::{LocalHealth, LocalProbe};

/// One accepted connection, as pacing sees it.
///
/// It outlives the HTTP layer's use of the socket by holding a duplicate of the descriptor, so that asking is always valid.
#[derive(Debug)]
pub struct Connection {
    /// `SO_COOKIE`: the identity under which the hint server knows the connection; 0 where the kernel gives none.
    pub cookie: u64,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    socket: OwnedFd,
    /// Bytes that the layer above wanted to write and the socket did not take.
    refused_bytes: AtomicU64,
    /// The same between HTTP and TLS, where there is TLS.
    refused_by_tls_bytes: AtomicU64,
    /// Kept with the connection, not with a request: the next request on it starts with what is known.
    probe: Mutex<LocalProbe>,
}

impl Connection {
    fn new(stream: &TcpStream) -> io::Result<Self> {
        let socket = stream.as_fd().try_clone_to_owned()?;
        Ok(Self {
            cookie: socket_cookie(&socket),
            peer: stream.peer_addr()?,
            local: stream.local_addr()?,
            socket,
            refused_bytes: AtomicU64::new(0),
            refused_by_tls_bytes: AtomicU64::new(0),
            probe: Mutex::default(),
        })
    }

    /// Bytes that have left the HTTP layer's queue of chunks and that the client has not acknowledged: refused by TLS or by the
    /// socket, unsent in it, or in flight. One `ioctl` (`SIOCOUTQ`, tcp(7)).
    pub fn undelivered_bytes(&self) -> u64 {
        let mut queued: libc::c_int = 0;
        // SAFETY: TIOCOUTQ (the same number as SIOCOUTQ) writes one int; the descriptor is owned by self.
        let rc = unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::TIOCOUTQ, &mut queued) };
        let queued = if rc == 0 { queued.max(0) as u64 } else { 0 };
        queued + self.refused_bytes.load(Ordering::Relaxed) + self.refused_by_tls_bytes.load(Ordering::Relaxed)
    }

    /// This engine's own opinion of the link, for when no hint server has one. `now` is on the engine's clock.
    pub fn local_health(&self, now: Duration) -> LocalHealth {
        self.probe.lock().health(now, || Some((parse_tcp_info(&self.tcp_info()?)?, self.undelivered_bytes())))
    }

    /// The kernel's `struct tcp_info` (linux/tcp.h) of this socket, as many bytes of it as the kernel knows.
    fn tcp_info(&self) -> Option<Vec<u8>> {
        let mut info = vec![0u8; 512];
        let mut length = info.len() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes and stores how many it wrote.
        let rc =
            unsafe { libc::getsockopt(self.socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &mut length) };
        (rc == 0).then(|| {
            info.truncate(length as usize);
            info
        })
    }
}

fn socket_cookie(socket: &OwnedFd) -> u64 {
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: SO_COOKIE writes eight bytes into `cookie`.
    let rc = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_COOKIE, (&raw mut cookie).cast(), &mut length) };
    if rc == 0 { cookie } else { 0 }
}

/// How much of a write was not taken.
fn refused(wanted: usize, poll: &Poll<io::Result<usize>>) -> u64 {
    let taken = match poll {
        Poll::Ready(Ok(n)) => *n,
        Poll::Ready(Err(_)) => wanted,
        Poll::Pending => 0,
    };
    (wanted - taken) as u64
}

/// The accepted socket under the HTTP layer; notes what the socket would not take.
pub struct TrackedStream {
    stream: TcpStream,
    connection: Arc<Connection>,
}

impl TrackedStream {
    /// # Errors
    /// When the socket is gone already.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let connection = Arc::new(Connection::new(&stream)?);
        Ok(Self { stream, connection })
    }

    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    fn note(&self, wanted: usize, poll: &Poll<io::Result<usize>>) {
        self.connection.refused_bytes.store(refused(wanted, poll), Ordering::Relaxed);
    }
}

impl AsyncRead for TrackedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for TrackedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note(buf.len(), &poll);
        poll
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note(bufs.iter().map(|b| b.len()).sum(), &poll);
        poll
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// TLS over a [`TrackedStream`], under the HTTP layer; notes what TLS would not take, which the socket below never sees.
pub struct TrackedTls<S> {
    stream: S,
    connection: Arc<Connection>,
}

impl<S> TrackedTls<S> {
    pub fn new(stream: S, connection: Arc<Connection>) -> Self {
        Self { stream, connection }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TrackedTls<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TrackedTls<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.connection.refused_by_tls_bytes.store(refused(buf.len(), &poll), Ordering::Relaxed);
        poll
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
