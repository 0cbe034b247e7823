use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    pin::Pin,
    sync::{
        Arc, Once,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use parking_lot::Mutex;
use socket2::SockRef;
use tokenflow_score::parse_tcp_info;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

use super::{
    coalesce::{LinkNote, Queue},
    local::{LocalHealth, LocalProbe},
};

/// `TCP_NOTSENT_LOWAT` of every socket: it takes more while less than half of this waits in it unsent. What the link cannot take yet
/// stays in our queues, where pacing counts it as tokens and tokens may still share events.
const NOTSENT_LOWAT_BYTES: u32 = 4 << 10;

/// Most bytes of one write: the kernel looks at the mark above only where it begins a segment, and one that it is to cut up later has
/// room for 64 KB.
const MAX_WRITE_BYTES: usize = 4 << 10;

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
    /// The bits of the delivery rate at the engine's last look, NaN where the network is not the limit.
    delivery_rate: AtomicU64,
    min_rtt_us: AtomicU64,
    beyond_bytes: AtomicU64,
    /// Up to how many bytes tokens that wait share an event, since the stream on it is behind; 0 where it is not.
    shared_bytes: AtomicU64,
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
            delivery_rate: AtomicU64::new(f64::NAN.to_bits()),
            min_rtt_us: AtomicU64::new(0),
            beyond_bytes: AtomicU64::new(0),
            shared_bytes: AtomicU64::new(0),
        })
    }

    /// Bytes that have left the HTTP layer's queue of chunks and that the client has not acknowledged: refused by TLS or by the
    /// socket, unsent in it, or in flight. One `ioctl` (`SIOCOUTQ`, tcp(7)).
    pub fn undelivered_bytes(&self) -> u64 {
        let mut queued: libc::c_int = 0;
        // SAFETY: TIOCOUTQ (the same number as SIOCOUTQ) writes one int; the descriptor is owned by self.
        let rc = unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::TIOCOUTQ, &mut queued) };
        let queued = if rc == 0 { queued.max(0) as u64 } else { 0 };
        queued + self.refused_bytes()
    }

    /// Of those, the bytes that TLS or the socket would not take.
    pub(super) fn refused_bytes(&self) -> u64 {
        self.refused_bytes.load(Ordering::Relaxed) + self.refused_by_tls_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn queue(&self) -> Queue {
        Queue { undelivered_bytes: self.undelivered_bytes(), refused_bytes: self.refused_bytes() }
    }

    /// Keeps what the engine's loop has just seen of the link, for whoever writes to it.
    pub(super) fn note_link(&self, link: LinkNote) {
        self.delivery_rate.store(link.delivery_rate.unwrap_or(f64::NAN).to_bits(), Ordering::Relaxed);
        self.min_rtt_us.store(link.min_rtt.as_micros() as u64, Ordering::Relaxed);
        self.beyond_bytes.store(link.beyond_bytes, Ordering::Relaxed);
    }

    pub(super) fn link(&self) -> LinkNote {
        let rate = f64::from_bits(self.delivery_rate.load(Ordering::Relaxed));
        LinkNote {
            delivery_rate: Some(rate).filter(|rate| !rate.is_nan()),
            min_rtt: Duration::from_micros(self.min_rtt_us.load(Ordering::Relaxed)),
            beyond_bytes: self.beyond_bytes.load(Ordering::Relaxed),
        }
    }

    /// Nobody looks at what waits at a gateway any more.
    pub(super) fn forget_beyond(&self) {
        self.beyond_bytes.store(0, Ordering::Relaxed);
    }

    pub(super) fn share_events(&self, up_to_bytes: u64) {
        self.shared_bytes.store(up_to_bytes, Ordering::Relaxed);
    }

    /// Up to how many bytes tokens that wait are to share an event; 0 where each has its own.
    pub fn shared_bytes(&self) -> u64 {
        self.shared_bytes.load(Ordering::Relaxed)
    }

    /// Whether the stream on it is behind, so that tokens that wait are to share an event.
    pub fn is_behind(&self) -> bool {
        self.shared_bytes() > 0
    }

    /// Whether the socket wants more. Asking arms the event that says when it does: after "no", `EPOLLOUT` comes as space does.
    fn wants_more(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        // SAFETY: one descriptor that self owns, and no waiting.
        let rc = unsafe { libc::poll(&mut poll, 1, 0) };
        // An error shows at the write.
        rc != 0
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
        if let Err(error) = SockRef::from(&stream).set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES) {
            static SAID: Once = Once::new();
            SAID.call_once(|| tracing::warn!("TCP_NOTSENT_LOWAT: {error}; output waits in sockets, which take more than they can send"));
        }
        let connection = Arc::new(Connection::new(&stream)?);
        Ok(Self { stream, connection })
    }

    /// Writes when the socket wants more, where `write(2)` alone would go on filling its last segment.
    fn poll_send(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let buf = &buf[..buf.len().min(MAX_WRITE_BYTES)];
        let send = |socket: SockRef<'_>| socket.send_with_flags(buf, libc::MSG_NOSIGNAL);
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            let sent = self.stream.try_io(Interest::WRITABLE, || {
                if self.connection.wants_more() { send(SockRef::from(&self.stream)) } else { Err(io::ErrorKind::WouldBlock.into()) }
            });
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    /// A client's end and the accepted one.
    #[cfg(test)]
    pub(super) async fn on_loopback() -> (TcpStream, Self) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, Self::new(listener.accept().await.unwrap().0).unwrap())
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
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = self.poll_send(cx, buf);
        self.note(buf.len(), &poll);
        poll
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let poll = self.poll_send(cx, bufs.iter().find(|buf| !buf.is_empty()).map_or(&[], |buf| &**buf));
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
