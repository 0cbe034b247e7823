//! HTTPS: it is spoken, and what a client has not read is known under it too.

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    routing::get,
};
use futures_util::stream;
use tokenflow_engine::{
    api::{server::serve, tls},
    health::Connection,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use crate::server::says;

/// A self-signed certificate for localhost, good for a century, its key, and the key of none.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tls").join(name)
}

/// A server with the certificate, and a client who trusts it.
fn certified() -> (TlsAcceptor, TlsConnector) {
    let acceptor = tls::acceptor(&file("cert.pem"), &file("key.pem")).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("cert.pem")).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions().unwrap();
    (acceptor, TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth())))
}

/// Sends `request` over TLS to a server of these routes.
async fn ask(router: Router, request: &str) -> TlsStream<TcpStream> {
    let (acceptor, connector) = certified();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, Some(acceptor), router, std::future::pending(), Duration::ZERO, || ()));
    let stream = TcpStream::connect(address).await.unwrap();
    let mut client = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    client
}

#[tokio::test]
async fn https_is_spoken() {
    let mut client = ask(says("x").router, "GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("\"max_model_len\":128"), "{answer}");
}

#[tokio::test]
async fn every_byte_that_a_deaf_client_has_not_taken_is_known() {
    const CHUNK: usize = 200;
    let made = Arc::new(AtomicUsize::new(0));
    let (sender, mut connections) = mpsc::unbounded_channel();
    let counter = made.clone();
    let route = get(move |Extension(connection): Extension<Arc<Connection>>| {
        sender.send(connection).unwrap();
        let chunks = stream::unfold(counter.clone(), |counter| async move {
            counter.fetch_add(CHUNK, Relaxed);
            Some((Ok::<_, Infallible>(Bytes::from_static(&[b'x'; CHUNK])), counter))
        });
        std::future::ready(Body::from_stream(chunks))
    });
    let client = ask(Router::new().route("/", route), "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let connection = connections.recv().await.unwrap();

    // Until all buffers are full, the client's own among them.
    let (mut before, mut unchanged) = (0, 0);
    while unchanged < 20 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = made.load(Relaxed);
        unchanged = if now == before && now > 0 { unchanged + 1 } else { 0 };
        before = now;
    }
    let mut received = vec![0; 64 << 20];
    let taken = client.get_ref().0.peek(&mut received).await.unwrap();
    let known = taken + connection.undelivered_bytes() as usize;
    // Framing and encryption add to it.
    assert!(known >= before, "{known} of {before} bytes are known");
    assert!(known <= before + before / 4, "{known} bytes for {before}");
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let error = |certificate: &Path, key: &Path| tls::acceptor(certificate, key).map(|_| ()).unwrap_err().to_string();
    let missing = Path::new("/nonexistent/cert.pem");
    assert!(error(missing, missing).starts_with("--ssl-certfile: /nonexistent/cert.pem: "));
    assert!(error(&file("cert.pem"), missing).starts_with("--ssl-keyfile: /nonexistent/cert.pem: "));
    assert!(error(&file("key.pem"), &file("key.pem")).ends_with("key.pem holds no certificate"));
    assert!(error(&file("cert.pem"), &file("other_key.pem")).starts_with("--ssl-certfile and --ssl-keyfile cannot be used together: "));
}
