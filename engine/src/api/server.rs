//! Accepts connections and speaks HTTP/1.1 on them, over TLS or plainly; ends when told, after the streams that run have been drained.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::health::{Connection, TrackedStream, TrackedTls};

/// Most bytes of a response that wait inside the HTTP layer; what exceeds them waits as tokens, which are smaller.
const MAX_HTTP_BUFFER_BYTES: usize = 64 * 1024;

/// Most bytes that wait encrypted for the socket; what exceeds them waits in the HTTP layer.
const MAX_TLS_BUFFER_BYTES: usize = 16 * 1024;

/// Longest wait for a request's head, and before it for the TLS handshake.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long streams have to write their last error out after they were aborted.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Serves until `stop` resolves, then lets running requests end within `drain_timeout`; `abort` ends those that remain.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    stop: impl Future<Output = ()>,
    drain_timeout: Duration,
    abort: impl FnOnce(),
) {
    let graceful = GracefulShutdown::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => spawn_connection(stream, peer, tls.clone(), &router, &graceful),
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    // Out of descriptors: waiting is all that helps.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            () = &mut stop => break,
        }
    }
    drop(listener);
    let drained = graceful.shutdown();
    tokio::pin!(drained);
    if tokio::time::timeout(drain_timeout, &mut drained).await.is_err() {
        tracing::warn!("streams still run after {drain_timeout:?}; they end with an error");
        abort();
        let _ = tokio::time::timeout(LAST_WORDS, drained).await;
    }
}

fn spawn_connection(stream: TcpStream, peer: SocketAddr, tls: Option<TlsAcceptor>, router: &Router, graceful: &GracefulShutdown) {
    let tracked = match TrackedStream::new(stream) {
        Ok(tracked) => tracked,
        Err(error) => return tracing::debug!(%peer, %error, "the connection was gone before it was served"),
    };
    let connection: Arc<Connection> = tracked.connection().clone();
    let router = router.clone().layer(Extension(connection.clone()));
    let watcher = graceful.watcher();
    tokio::spawn(async move {
        let Some(tls) = tls else { return serve_connection(tracked, peer, router, watcher).await };
        match tokio::time::timeout(HEADER_TIMEOUT, tls.accept(tracked)).await {
            Ok(Ok(mut stream)) => {
                stream.get_mut().1.set_buffer_limit(Some(MAX_TLS_BUFFER_BYTES));
                serve_connection(TrackedTls::new(stream, connection), peer, router, watcher).await;
            }
            Ok(Err(error)) => tracing::debug!(%peer, %error, "the TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "the TLS handshake took too long"),
        }
    });
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    router: Router,
    watcher: Watcher,
) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HTTP_BUFFER_BYTES)
        // One flat buffer, so that a refused write tells how much waits.
        .writev(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = watcher.watch(served).await {
        tracing::debug!(%peer, %error, "connection ended early");
    }
}

/// Binds the address; the error names it.
///
/// # Errors
/// When the address is in use or not this host's.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}
