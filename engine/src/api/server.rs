//! Accepts connections and speaks HTTP/1.1 on them; ends when told, after the streams that run have been drained.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::net::{TcpListener, TcpStream};

use crate::health::{Connection, TrackedStream};

/// Most bytes of a response that wait inside the HTTP layer; what exceeds them waits as tokens, which are smaller.
const MAX_HTTP_BUFFER_BYTES: usize = 64 * 1024;

/// Longest wait for a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long streams have to write their last error out after they were aborted.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Serves until `stop` resolves, then lets running requests end within `drain_timeout`; `abort` ends those that remain.
pub async fn serve(listener: TcpListener, router: Router, stop: impl Future<Output = ()>, drain_timeout: Duration, abort: impl FnOnce()) {
    let graceful = GracefulShutdown::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => spawn_connection(stream, peer, &router, &graceful),
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

fn spawn_connection(stream: TcpStream, peer: SocketAddr, router: &Router, graceful: &GracefulShutdown) {
    let tracked = match TrackedStream::new(stream) {
        Ok(tracked) => tracked,
        Err(error) => return tracing::debug!(%peer, %error, "the connection was gone before it was served"),
    };
    let connection: Arc<Connection> = tracked.connection().clone();
    let service = TowerToHyperService::new(router.clone().layer(Extension(connection)));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HTTP_BUFFER_BYTES)
        // One flat buffer, so that a refused write tells how much waits.
        .writev(false)
        .serve_connection(TokioIo::new(tracked), service);
    let served = graceful.watch(served);
    tokio::spawn(async move {
        if let Err(error) = served.await {
            tracing::debug!(%peer, %error, "connection ended early");
        }
    });
}

/// Binds the address; the error names it.
///
/// # Errors
/// When the address is in use or not this host's.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}
