use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener},
};

use super::*;
use crate::{Connection, Hint, HintEvent, HintMetrics, Source, Terms};

fn hint(health: f64, seq: u64) -> Hint {
    Hint {
        health_factor: health,
        health,
        token_rate: None,
        metrics: HintMetrics::default(),
        source: Source::SockDiag,
        connections: 1,
        age_ms: 3,
        seq,
    }
}

fn connection(cookie: u64, health: f64) -> Connection {
    Connection {
        cookie,
        local: "127.0.0.1:8000".parse().unwrap(),
        peer: "127.0.0.1:40000".parse().unwrap(),
        health,
        terms: Terms { delay: health, loss: 1.0, queue: 1.0 },
        token_rate: None,
        srtt_us: 50,
        min_rtt_us: 20,
        retransmits: 0,
        undelivered_bytes: 0,
        delivery_rate_bytes_per_s: 0,
        age_ms: 0,
        source: Source::SockDiag,
    }
}

fn sse(name: &str, health: f64, changed: Vec<Connection>, removed: Vec<u64>) -> String {
    let event = HintEvent { hint: hint(health, 1), changed, removed, remote: Vec::new(), remote_removed: Vec::new() };
    format!("event: {name}\ndata: {}\n\n", serde_json::to_string(&event).unwrap())
}

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";

async fn accept(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = [0; 1024];
    let length = stream.read(&mut request).await.unwrap();
    assert!(request[..length].starts_with(b"GET /hint/stream HTTP/1.1\r\n"));
    stream
}

async fn until(mut condition: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("did not happen in five seconds");
}

fn url_of(listener: &TcpListener) -> HintUrl {
    format!("http://{}/hint", listener.local_addr().unwrap()).parse().unwrap()
}

#[tokio::test]
async fn follows_snapshots_changes_and_removals_and_comes_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let subscriber = Subscriber::spawn(url_of(&listener));
    assert_eq!(subscriber.status(), Status::Unreachable);
    assert!(subscriber.snapshot().is_none());

    let mut stream = accept(&listener).await;
    stream
        .write_all((HEAD.to_owned() + &sse("snapshot", 0.9, vec![connection(1, 0.9), connection(2, 1.0)], vec![])).as_bytes())
        .await
        .unwrap();
    until(|| subscriber.snapshot().is_some()).await;
    assert_eq!(subscriber.status(), Status::Connected);
    assert_eq!(subscriber.snapshot().unwrap().connections.len(), 2);

    stream.write_all(sse("change", 0.4, vec![connection(1, 0.3)], vec![2]).as_bytes()).await.unwrap();
    until(|| subscriber.snapshot().unwrap().hint.health_factor == 0.4).await;
    let state = subscriber.snapshot().unwrap();
    assert_eq!((state.connections.len(), state.connections[&1].health), (1, 0.3));

    stream.write_all(b": keep-alive\n\n").await.unwrap();
    until(|| subscriber.snapshot().unwrap().received_at > state.received_at).await;

    drop(stream);
    until(|| subscriber.status() == Status::Unreachable).await;
    let mut stream = accept(&listener).await;
    stream.write_all((HEAD.to_owned() + &sse("snapshot", 1.0, vec![], vec![])).as_bytes()).await.unwrap();
    until(|| subscriber.snapshot().is_some_and(|state| state.connections.is_empty())).await;
}

#[tokio::test]
async fn silence_makes_it_stale() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let subscriber = Subscriber::spawn(url_of(&listener));
    let mut stream = accept(&listener).await;
    stream.write_all((HEAD.to_owned() + &sse("snapshot", 0.5, vec![], vec![])).as_bytes()).await.unwrap();
    until(|| subscriber.snapshot().is_some()).await;
    let later = Instant::now() + STALE_AFTER + Duration::from_millis(100);
    assert!(subscriber.snapshot_at(later).is_none());
    assert_eq!(subscriber.status_at(later), Status::Stale);
}

#[tokio::test]
async fn nonsense_is_left_and_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let subscriber = Subscriber::spawn(url_of(&listener));
    for answer in [
        "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "SSH-2.0-OpenSSH_9.2\r\n".to_owned(),
        format!("{HEAD}event: snapshot\ndata: {{\n\n"),
        HEAD.to_owned() + &sse("change", 0.1, vec![], vec![]),
    ] {
        let mut stream = accept(&listener).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
    let mut stream = accept(&listener).await;
    assert!(subscriber.snapshot().is_none());
    stream.write_all((HEAD.to_owned() + &sse("snapshot", 0.5, vec![], vec![])).as_bytes()).await.unwrap();
    until(|| subscriber.snapshot().is_some()).await;
}

#[tokio::test]
async fn reads_from_a_unix_socket() {
    let path = std::env::temp_dir().join(format!("tokenflow-hint-api-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    let subscriber = Subscriber::spawn(HintUrl::Unix(path.clone()));
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = [0; 1024];
    let _ = stream.read(&mut request).await.unwrap();
    stream.write_all((HEAD.to_owned() + &sse("snapshot", 0.25, vec![], vec![])).as_bytes()).await.unwrap();
    until(|| subscriber.snapshot().is_some_and(|state| state.hint.health_factor == 0.25)).await;
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test]
async fn none_is_disabled() {
    let subscriber = Subscriber::spawn(HintUrl::None);
    assert_eq!(subscriber.status(), Status::Disabled);
    assert!(subscriber.snapshot().is_none());
}
