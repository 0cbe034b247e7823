//! A hub for tests: it speaks the protocol on loopback, large files through a second address as the hub's own storage, and misbehaves
//! as told.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

pub const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

/// What is done to the bytes of large files.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bytes {
    Whole,
    /// In small pieces with a pause after each.
    Slow,
    /// The connection ends after so many bytes, so many times.
    Cut {
        after: usize,
        times: usize,
    },
    /// After so many bytes nothing comes any more.
    Stall {
        after: usize,
    },
    /// Ranges are ignored, and the first connection is cut.
    NoRanges {
        first_cut: usize,
    },
}

#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: HashMap<String, String>,
}

pub struct State {
    pub repository: String,
    pub files: HashMap<String, Vec<u8>>,
    pub bytes: Bytes,
    /// Status and error code for every request of the API, or of the file.
    pub refusal: Option<(&'static str, u16, &'static str)>,
    pub requests: Vec<Request>,
}

pub struct Hub {
    pub endpoint: String,
    pub state: Arc<Mutex<State>>,
}

impl Hub {
    pub fn start(repository: &str, files: &[(&str, Vec<u8>)]) -> Self {
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect();
        let state = State { repository: repository.into(), files, bytes: Bytes::Whole, refusal: None, requests: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let storage = listen(state.clone(), None);
        let endpoint = listen(state.clone(), Some(storage));
        Self { endpoint: format!("http://{endpoint}"), state }
    }

    pub fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    /// The requests since the last call.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }
}

/// Without a storage it is one.
fn listen(state: Arc<Mutex<State>>, storage: Option<SocketAddr>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let state = state.clone();
            thread::spawn(move || answer(stream, &state, storage));
        }
    });
    address
}

fn answer(stream: TcpStream, state: &Mutex<State>, storage: Option<SocketAddr>) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers = lines.map_while(|line| line.ok().filter(|line| !line.is_empty()));
    let headers = headers.filter_map(|line| line.split_once(": ").map(|(k, v)| (k.to_lowercase(), v.to_owned()))).collect();
    let request = Request { method, path, headers };
    let mut state = state.lock().ok()?;
    state.requests.push(request.clone());
    match storage {
        Some(storage) => endpoint(stream, &request, &state, storage),
        None => {
            let name = request.path.strip_prefix("/storage/")?.to_owned();
            let (content, how) = (state.files.get(&name)?.clone(), state.bytes);
            state.bytes = match how {
                Bytes::Cut { after, times: 2.. } => Bytes::Cut { after, times: how_often(how) - 1 },
                Bytes::Cut { .. } => Bytes::Whole,
                Bytes::NoRanges { .. } => Bytes::NoRanges { first_cut: usize::MAX },
                other => other,
            };
            drop(state);
            send_content(stream, &request, &content, how)
        }
    }
}

fn how_often(how: Bytes) -> usize {
    if let Bytes::Cut { times, .. } = how { times } else { 0 }
}

fn reply(mut stream: TcpStream, status: u16, headers: &str, body: &[u8]) -> Option<()> {
    let head = format!("HTTP/1.1 {status} Said\r\nConnection: close\r\nX-Repo-Commit: {SHA}\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()
}

fn endpoint(stream: TcpStream, request: &Request, state: &State, storage: SocketAddr) -> Option<()> {
    if let Some((part, status, code)) = state.refusal.filter(|(part, ..)| request.path.contains(part)) {
        let _ = part;
        return reply(stream, status, &format!("X-Error-Code: {code}\r\nContent-Length: 2\r\n"), b"{}");
    }
    if request.path == format!("/api/models/{}/revision/main", state.repository) {
        let siblings: Vec<_> = state.files.keys().map(|name| serde_json::json!({"rfilename": name})).collect();
        let body = serde_json::json!({"id": state.repository, "sha": SHA, "siblings": siblings}).to_string();
        return reply(stream, 200, &format!("Content-Length: {}\r\n", body.len()), body.as_bytes());
    }
    if request.path.starts_with("/api/models/") {
        let (status, code) = if request.path.contains(&state.repository) { (404, "RevisionNotFound") } else { (401, "RepoNotFound") };
        return reply(stream, status, &format!("X-Error-Code: {code}\r\nContent-Length: 0\r\n"), b"");
    }
    let name = request.path.strip_prefix(&format!("/{}/resolve/{SHA}/", state.repository))?;
    let Some(content) = state.files.get(name) else {
        return reply(stream, 404, "X-Error-Code: EntryNotFound\r\nContent-Length: 0\r\n", b"");
    };
    if name.ends_with(".json") {
        let headers = format!("ETag: \"{}\"\r\nContent-Length: {}\r\n", etag(name), content.len());
        return reply(stream, 200, &headers, if request.method == "HEAD" { b"" } else { content });
    }
    let linked = format!("X-Linked-ETag: \"{}\"\r\nX-Linked-Size: {}\r\n", etag(name), content.len());
    reply(stream, 302, &format!("Location: http://{storage}/storage/{name}\r\nContent-Length: 0\r\n{linked}"), b"")
}

/// Not what the hub computes, but as unique.
pub fn etag(name: &str) -> String {
    name.bytes().map(|b| format!("{b:02x}")).collect()
}

fn send_content(mut stream: TcpStream, request: &Request, content: &[u8], how: Bytes) -> Option<()> {
    let range = request.headers.get("range").filter(|_| !matches!(how, Bytes::NoRanges { .. }));
    let start = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok()).unwrap_or(0);
    let part = &content[start..];
    let ranged = format!("Content-Range: bytes {start}-{}/{}\r\n", content.len() - 1, content.len());
    let (status, range_header) = if range.is_some() { (206, ranged.as_str()) } else { (200, "") };
    let head = format!("HTTP/1.1 {status} Said\r\nConnection: close\r\n{range_header}Content-Length: {}\r\n\r\n", part.len());
    stream.write_all(head.as_bytes()).ok()?;
    match how {
        Bytes::Whole => stream.write_all(part).ok(),
        Bytes::Slow => {
            for piece in part.chunks(content.len().div_ceil(20)) {
                stream.write_all(piece).ok()?;
                thread::sleep(Duration::from_millis(5));
            }
            Some(())
        }
        Bytes::Cut { after, .. } | Bytes::NoRanges { first_cut: after } => stream.write_all(&part[..after.min(part.len())]).ok(),
        Bytes::Stall { after } => {
            stream.write_all(&part[..after.min(part.len())]).ok()?;
            thread::sleep(Duration::from_secs(60));
            Some(())
        }
    }
}
