//! Hint servers that share through a real redis-server (Debian's package), also while it is dead, slow, or holds nonsense.

#[path = "common/pair.rs"]
mod pair;
#[path = "common/server.rs"]
mod server;

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use pair::{Pair, until};
use serde_json::Value;
use server::Server;

struct Redis {
    child: Child,
    socket: PathBuf,
}

impl Redis {
    /// `None`, with the reason printed, where it is not installed.
    fn start(folder: &Path) -> Option<Self> {
        let socket = folder.join("redis.sock");
        let _ = std::fs::remove_file(&socket);
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--loglevel", "warning", "--unixsocket"]).arg(&socket);
        let Ok(child) = command.current_dir(folder).stdout(Stdio::null()).spawn() else {
            assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: `redis-server` is missing");
            eprintln!("skipped: `redis-server` is not installed (package redis-server)");
            return None;
        };
        let redis = Self { child, socket };
        until(|| UnixStream::connect(&redis.socket).ok());
        Some(redis)
    }

    fn url(&self) -> String {
        format!("redis+unix://{}", self.socket.display())
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap().success());
    }

    /// One command, in RESP; returns the first line of the answer.
    fn ask(&self, words: &[&[u8]]) -> String {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        let mut message = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            message.extend(format!("${}\r\n", word.len()).into_bytes());
            message.extend(*word);
            message.extend(b"\r\n");
        }
        stream.write_all(&message).unwrap();
        let (mut answer, mut byte) = (Vec::new(), [0]);
        while !answer.ends_with(b"\r\n") && stream.read(&mut byte).unwrap() == 1 {
            answer.push(byte[0]);
        }
        String::from_utf8_lossy(&answer).trim().to_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn host(redis: &Redis, name: &str, watched: &Pair) -> Server {
    let port = watched.port().to_string();
    let flags = ["--listen", "127.0.0.1:0", "--probe", "sock-diag", "--watch-port", &port, "--redis", &redis.url(), "--host-name", name];
    Server::start(&flags)
}

fn json(server: &Server, path: &str) -> Option<Value> {
    let (status, body) = server.get(path);
    (status == 200).then(|| serde_json::from_str(&body).unwrap())
}

fn metric(server: &Server, name: &str) -> f64 {
    let page = server.get("/metrics").1;
    page.lines().find_map(|line| line.strip_prefix(&format!("tokenflow_hint_{name} "))?.parse().ok()).unwrap()
}

fn knows(server: &Server, host: &str) -> bool {
    json(server, "/hosts").unwrap().as_array().unwrap().iter().any(|entry| entry["host"] == host)
}

#[test]
fn any_hint_server_answers_for_any_host() {
    let folder = tempfile::tempdir().unwrap();
    let Some(redis) = Redis::start(folder.path()) else { return };
    let (ours, theirs) = (Pair::new("127.0.0.1:0"), Pair::new("127.0.0.1:0"));
    ours.fill();
    let (a, b) = (host(&redis, "gateway-a", &ours), host(&redis, "gateway-b", &theirs));

    let path = format!("/hint?peer={}", ours.peer());
    let sick = until(|| json(&b, &path).filter(|hint| hint["health_factor"].as_f64().unwrap() < 0.5));
    assert!(sick["metrics"]["queued_bytes"].as_u64().unwrap() > 0);
    let mut answer = String::new();
    b.open(&path).read_to_string(&mut answer).unwrap();
    assert!(answer.to_lowercase().contains("\r\nx-tokenflow-host: gateway-a\r\n"), "{answer}");
    until(|| json(&a, &format!("/hint?peer={}", theirs.peer())));

    let hosts = json(&b, "/hosts").unwrap();
    assert_eq!((hosts[0]["host"].as_str(), hosts[0]["own"].as_bool()), (Some("gateway-b"), Some(true)));
    assert_eq!((hosts[1]["host"].as_str(), hosts[1]["tracked"].as_u64()), (Some("gateway-a"), Some(1)));
    let remote = json(&b, "/connections?host=gateway-a").unwrap();
    assert_eq!(remote[0]["cookie"].as_u64(), Some(ours.cookie()));
    let own = json(&b, "/connections").unwrap();
    assert_eq!(own.as_array().unwrap().iter().map(|c| c["cookie"].as_u64().unwrap()).collect::<Vec<_>>(), [theirs.cookie()]);
    assert_eq!(json(&b, "/hint").unwrap()["health_factor"].as_f64(), Some(1.0), "the aggregate is this host's alone");
    assert_eq!(b.get("/connections?host=nobody").0, 404);
    assert!(redis.ask(&[b"PTTL", b"tokenflow:hints:v1:gateway-a"])[1..].parse::<i64>().unwrap() > 0, "every key goes by itself");
    assert!(redis.ask(&[b"PTTL", b"tokenflow:hints:v1"])[1..].parse::<i64>().unwrap() > 0);

    // A host that dies is forgotten.
    drop(a);
    until(|| (!knows(&b, "gateway-a")).then_some(()));
    assert_eq!(b.get(&path).0, 404);
}

#[test]
fn a_redis_that_dies_and_returns_costs_only_the_other_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let Some(redis) = Redis::start(folder.path()) else { return };
    let (ours, theirs) = (Pair::new("127.0.0.1:0"), Pair::new("127.0.0.1:0"));
    let (_a, b) = (host(&redis, "a", &ours), host(&redis, "b", &theirs));
    until(|| knows(&b, "a").then_some(()));

    drop(redis);
    until(|| (metric(&b, "redis_connected") == 0.0 && !knows(&b, "a")).then_some(()));
    assert!(json(&b, &format!("/hint?peer={}", theirs.peer())).is_some(), "its own it still knows");

    let _redis = Redis::start(folder.path()).unwrap();
    until(|| knows(&b, "a").then_some(()));
    assert_eq!(metric(&b, "redis_connected"), 1.0);
}

#[test]
fn a_redis_that_hangs_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let Some(redis) = Redis::start(folder.path()) else { return };
    let (ours, theirs) = (Pair::new("127.0.0.1:0"), Pair::new("127.0.0.1:0"));
    let (_a, b) = (host(&redis, "a", &ours), host(&redis, "b", &theirs));
    until(|| knows(&b, "a").then_some(()));

    redis.signal("STOP");
    let looks = metric(&b, "looks_total");
    until(|| (metric(&b, "redis_connected") == 0.0 && !knows(&b, "a")).then_some(()));
    assert!(json(&b, "/hint").is_some());
    until(|| (metric(&b, "looks_total") > looks + 3.0).then_some(()));

    redis.signal("CONT");
    until(|| knows(&b, "a").then_some(()));
}

#[test]
fn nonsense_in_redis_is_counted_and_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let Some(redis) = Redis::start(folder.path()) else { return };
    let (ours, theirs) = (Pair::new("127.0.0.1:0"), Pair::new("127.0.0.1:0"));
    let huge = vec![b'['; 5 << 20];
    let future = format!("{}", std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 5);
    let values: [(&[u8], &[u8]); 4] = [(b"evil", b"{\"version\":1"), (b"huge", &huge), (b"odd name", b"x"), (b"\xff", b"x")];
    for (name, value) in values {
        redis.ask(&[b"SET", &[b"tokenflow:hints:v1:", name].concat(), value]);
        redis.ask(&[b"ZADD", b"tokenflow:hints:v1", future.as_bytes(), name]);
    }
    let (_a, b) = (host(&redis, "a", &ours), host(&redis, "b", &theirs));
    until(|| (knows(&b, "a") && metric(&b, "redis_reports_refused_total") >= 2.0).then_some(()));
    assert_eq!(metric(&b, "peer_hosts"), 1.0);
    // A key of another kind is an error of every exchange, and nothing more.
    redis.ask(&[b"SET", b"tokenflow:hints:v1", b"x"]);
    until(|| (metric(&b, "redis_connected") == 0.0).then_some(()));
    assert!(json(&b, "/hint").is_some());
}

#[test]
fn flags_that_will_not_do_are_one_sentence() {
    for (flags, says) in [
        (&["--redis", "http://me:secret@host"][..], "--redis"),
        (&["--redis", "redis://127.0.0.1", "--host-name", "a b"][..], "--host-name 'a b'"),
    ] {
        let output = Server::command(&[&["--listen", "127.0.0.1:0", "--probe", "sock-diag"], flags].concat()).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(error.contains(says) && error.trim().lines().count() == 1 && !error.contains("secret"), "{error}");
    }
}
