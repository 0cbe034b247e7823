//! Just enough HTTP/1.1 for the testbed: one request on one connection, whose socket the caller can see.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, ensure};
use serde_json::Value;

/// Longest silence on a connection.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// What is read ahead of what the caller takes.
const BUFFER_BYTES: usize = 8192;

/// A response whose body has not been read yet.
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: BufReader<TcpStream>,
}

/// Sends a request and reads the head of the response.
///
/// # Errors
/// When the connection fails or the peer does not speak HTTP.
pub fn send(address: SocketAddr, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Response> {
    exchange(TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?, BUFFER_BYTES, method, path, body)
}

/// The same on a connection that the caller has made, read through a buffer of so many bytes.
///
/// # Errors
/// When the connection fails or the peer does not speak HTTP.
pub fn exchange(stream: TcpStream, buffer: usize, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Response> {
    let address = stream.peer_addr()?;
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    let body = body.map(Value::to_string).unwrap_or_default();
    let mut writer = stream.try_clone()?;
    write!(
        writer,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut reader = BufReader::with_capacity(buffer, stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split_whitespace().nth(1).and_then(|s| s.parse().ok()).with_context(|| format!("not a status line: {line:?}"))?;
    let mut headers = Vec::new();
    loop {
        line.clear();
        ensure!(reader.read_line(&mut line)? > 0, "the response ended inside its head");
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Ok(Response { status, headers, body: reader })
}

impl Response {
    /// The whole body, chunk framing taken off.
    ///
    /// # Errors
    /// When the connection fails, is silent for a minute, or the body is not text.
    pub fn read_all(mut self) -> anyhow::Result<String> {
        let chunked = self.headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
        let mut text = Vec::new();
        if chunked {
            while let Some(chunk) = self.chunk()? {
                text.extend(chunk);
            }
        } else {
            self.body.read_to_end(&mut text)?;
        }
        Ok(String::from_utf8(text)?)
    }

    /// The next chunk of a chunked body; `None` after the last.
    ///
    /// # Errors
    /// When the connection ends or fails before the last chunk.
    pub fn chunk(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        let mut line = String::new();
        ensure!(self.body.read_line(&mut line)? > 0, "the stream was cut off");
        let length = usize::from_str_radix(line.trim(), 16).with_context(|| format!("not a chunk length: {line:?}"))?;
        let mut chunk = vec![0; length + 2];
        self.body.read_exact(&mut chunk)?;
        chunk.truncate(length);
        Ok((length > 0).then_some(chunk))
    }
}

/// The address in a URL such as `http://127.0.0.1:8000`.
///
/// # Errors
/// When it has none.
pub fn address(url: &str) -> anyhow::Result<SocketAddr> {
    url.trim_start_matches("http://").parse().with_context(|| format!("{url} names no address"))
}

/// `GET` that must succeed and give JSON.
///
/// # Errors
/// When it does not.
pub fn get_json(url: &str, path: &str) -> anyhow::Result<Value> {
    let response = send(address(url)?, "GET", path, None)?;
    let status = response.status;
    let text = response.read_all()?;
    ensure!(status == 200, "GET {path}: {status} {text}");
    Ok(serde_json::from_str(&text)?)
}

/// `GET` of a text.
///
/// # Errors
/// When the connection fails.
pub fn get_text(url: &str, path: &str) -> anyhow::Result<String> {
    send(address(url)?, "GET", path, None)?.read_all()
}

/// `POST` of JSON: status and answer.
///
/// # Errors
/// When the connection fails or the answer is not JSON.
pub fn post_json(url: &str, path: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
    let response = send(address(url)?, "POST", path, Some(body))?;
    let status = response.status;
    let text = response.read_all()?;
    Ok((status, serde_json::from_str(&text).with_context(|| format!("{status}: not JSON: {text}"))?))
}
