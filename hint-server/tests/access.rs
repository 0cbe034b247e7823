//! Who may read what, over real sockets.

#[path = "common/pair.rs"]
mod pair;
#[path = "common/server.rs"]
mod server;

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    os::unix::{fs::PermissionsExt, net::UnixStream},
};

use pair::{Pair, until};
use server::Server;

const TOKEN: &str = "a-token-for-this-test-alone";

/// Status and answer of a GET with this header line, if any.
fn get(mut stream: impl Read + Write, path: &str, header: &str) -> (u16, String) {
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{header}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

fn tcp(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).unwrap()
}

#[test]
fn with_a_token_addresses_are_for_those_who_have_it() {
    let folder = tempfile::tempdir().unwrap();
    let (file, socket) = (folder.path().join("token"), folder.path().join("hint.sock"));
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let pair = Pair::new("127.0.0.1:0");
    let (port, peer) = (pair.port().to_string(), pair.peer().to_string());
    let flags = ["--listen", "127.0.0.1:0", "--probe", "sock-diag", "--watch-port", &port];
    let server = Server::start(&[&flags[..], &["--token-file", file.to_str().unwrap(), "--socket", socket.to_str().unwrap()]].concat());
    let cookie = pair.cookie().to_string();
    until(|| get(tcp(server.address), "/connections", "").1.contains(&cookie).then_some(()));
    let good = format!("authorization: Bearer {TOKEN}\r\n");

    for path in ["/connections", "/connections?limit=5"] {
        let (status, blind) = get(tcp(server.address), path, "");
        assert!(status == 200 && blind.contains(&cookie) && !blind.contains(&peer) && blind.contains("0.0.0.0:0"), "{blind}");
        assert!(get(tcp(server.address), path, &good).1.contains(&peer));
        assert!(get(UnixStream::connect(&socket).unwrap(), path, "").1.contains(&peer));
    }
    assert_eq!(get(tcp(server.address), &format!("/hint?peer={peer}"), "").0, 403);
    assert_eq!(get(tcp(server.address), &format!("/hint?peer={peer}"), &good).0, 200);
    assert_eq!(get(tcp(server.address), &format!("/hint?cookie={cookie}"), "").0, 200);
    for path in ["/hint", "/hint/stream", "/connections", "/hosts", "/history", "/metrics"] {
        let (status, answer) = get(tcp(server.address), path, "authorization: Bearer wrong\r\n");
        assert!(status == 401 && answer.to_lowercase().contains("www-authenticate: bearer") && !answer.contains(TOKEN), "{path}: {answer}");
    }

    // The stream is blind too.
    let mut stream = tcp(server.address);
    write!(stream, "GET /hint/stream HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut told = String::new();
    while !told.contains(&cookie) || !told.contains("removed") {
        let mut bytes = [0; 4096];
        let read = stream.read(&mut bytes).unwrap();
        assert!(read > 0);
        told += &String::from_utf8_lossy(&bytes[..read]);
    }
    assert!(!told.contains(&peer) && told.contains("0.0.0.0:0"), "{told}");
}

#[test]
fn readers_elsewhere_need_the_token() {
    // The address that packets to a documentation network would leave from; nothing is sent.
    let own = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()));
    let Some(own) = own.ok().map(|address| address.ip()).filter(|ip: &IpAddr| !ip.is_loopback()) else {
        assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: this machine has no address but loopback");
        eprintln!("skipped: this machine has no address but loopback");
        return;
    };
    let good = format!("authorization: Bearer {TOKEN}\r\n");
    for token in [None, Some(TOKEN)] {
        let mut flags = vec!["--listen", "0.0.0.0:0", "--probe", "sock-diag"];
        flags.extend(token.map(|token| ["--token", token]).into_iter().flatten());
        let server = Server::start(&flags);
        let elsewhere = SocketAddr::new(own, server.address.port());
        for path in ["/hint", "/hint/stream", "/connections", "/metrics", "/history", "/hosts"] {
            assert_eq!(get(tcp(elsewhere), path, "").0, 401, "{path}");
        }
        assert_eq!(get(tcp(elsewhere), "/hint", &good).0, if token.is_some() { 200 } else { 401 });
        assert_eq!(get(tcp(elsewhere), "/healthz", "").0, 200);
        assert_eq!(get(tcp(elsewhere), "/", "").0, 200, "the page itself tells nothing");
    }
}

#[test]
fn a_page_that_made_its_name_resolve_to_this_host_reads_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("hint.sock");
    let ask = |mut stream: Box<dyn ReadWrite>, host: &str, header: &str| {
        write!(stream, "GET /hint HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{header}\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        (answer.split(' ').nth(1).unwrap().parse::<u16>().unwrap(), answer)
    };
    let flags = ["--listen", "127.0.0.1:0", "--probe", "sock-diag", "--allow-host", "hints.example.org", "--token", TOKEN];
    let server = Server::start(&[&flags[..], &["--socket", socket.to_str().unwrap()]].concat());
    let over_tcp = |host: &str, header: &str| ask(Box::new(tcp(server.address)), host, header);
    let (status, answer) = over_tcp("evil.example:5000", "");
    let asks_for_token = answer.to_ascii_lowercase().contains("www-authenticate: bearer");
    assert!(status == 401 && asks_for_token && answer.contains("--allow-host"), "{answer}");
    for host in ["hints.example.org", "localhost:5000", "127.0.0.1", "[::1]:1"] {
        assert_eq!(over_tcp(host, "").0, 200, "{host}");
    }
    assert_eq!(over_tcp("evil.example", &format!("authorization: Bearer {TOKEN}\r\n")).0, 200);
    assert_eq!(ask(Box::new(UnixStream::connect(&socket).unwrap()), "evil.example", "").0, 200);
    let without_token = Server::start(&["--listen", "127.0.0.1:0", "--probe", "sock-diag"]);
    let (status, answer) = ask(Box::new(tcp(without_token.address)), "evil.example", "");
    assert!(status == 403 && answer.contains("--allow-host"), "{answer}");
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

#[test]
fn a_token_that_guards_nothing_is_refused() {
    for flags in [&["--token", "short"][..], &["--token-file", "/nonexistent"]] {
        let output = Server::command(&[&["--listen", "127.0.0.1:0", "--probe", "sock-diag"], flags].concat()).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && error.contains("--token") && error.trim().lines().count() == 1, "{error}");
    }
}
