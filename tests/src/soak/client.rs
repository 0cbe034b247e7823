//! One client's visit, from good manners to none, and what came of it.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::requests::{self, Promise, Request};
use crate::{http, random::Random};

/// What a visit was, and whether the server did right by it.
pub(super) struct Event {
    pub(super) kind: &'static str,
    /// 0 where the client did not wait for one.
    pub(super) status: u16,
    /// Of a refusal that the client did not ask for: the field, which this server has not learnt yet.
    pub(super) refused: Option<String>,
    pub(super) finish_reasons: Vec<String>,
    /// What the server did wrong, in a sentence.
    pub(super) violation: Option<String>,
}

#[derive(Default)]
struct Seen {
    status: u16,
    refused: Option<String>,
    finish_reasons: Vec<String>,
}

/// Visits the server once.
pub(super) fn act(server: SocketAddr, random: &mut Random) -> Event {
    type Visit = fn(SocketAddr, &mut Random, &mut Seen) -> anyhow::Result<()>;
    let visits: [(&str, u64, Visit); 12] = [
        ("stream", 6, stream),
        ("whole", 4, whole),
        ("stream_slowly", 2, stream_slowly),
        ("other_route", 2, other_route),
        ("other_route_stream", 2, other_route_stream),
        ("tools", 1, tools),
        ("leave_stream", 4, leave_stream),
        ("leave_whole", 2, leave_whole),
        ("malformed", 3, malformed),
        ("cut_request", 2, cut_request),
        ("garbage", 1, garbage),
        ("look_around", 1, look_around),
    ];
    let mut lot = random.below(visits.iter().map(|(_, weight, _)| weight).sum());
    let drawn = visits.iter().find(|(_, weight, _)| {
        let hit = lot < *weight;
        lot = lot.saturating_sub(*weight);
        hit
    });
    let &(kind, _, visit) = drawn.unwrap_or(&visits[0]);
    let mut seen = Seen::default();
    let violation = visit(server, random, &mut seen).err().map(|error| format!("{kind}: {error:#}"));
    Event { kind, status: seen.status, refused: seen.refused, finish_reasons: seen.finish_reasons, violation }
}

/// Reads a stream to its end as fast as it comes.
fn stream(server: SocketAddr, random: &mut Random, seen: &mut Seen) -> anyhow::Result<()> {
    let request = requests::good(random, true);
    read_stream(server, &request, seen, |_| Some(Duration::ZERO))
}

/// Reads a stream to its end, resting between chunks.
fn stream_slowly(server: SocketAddr, random: &mut Random, seen: &mut Seen) -> anyhow::Result<()> {
    let request = requests::good(random, true);
    let rest = Duration::from_millis(5 + random.below(60));
    // Not for ever: a soak's pauses wait for every client.
    read_stream(server, &request, seen, |chunk| Some(if chunk < 30 { rest } else { Duration::ZERO }))
}

/// Goes away somewhere in a stream.
fn leave_stream(server: SocketAddr, random: &mut Random, seen: &mut Seen) -> anyhow::Result<()> {
    let request = requests::good(random, true);
    let enough = random.below(12);
    read_stream(server, &request, seen, |chunk| (chunk < enough).then_some(Duration::ZERO))
}

/// Waits for an answer in one piece.
fn whole(server: SocketAddr, random: &mut Random, seen: &mut Seen) -> anyhow::Result<()> {
    let request = requests::good(random, false);
    let response = http::send(server, "POST", request.path, Some(&request.body))?;
    seen.status = response.status;
    let text = response.read_all()?;
    let answer: Value = serde_json::from_str(&text).with_context(|| format!("{} is not JSON: {text}", request.path))?;
    if seen.status != 200 {
        return refusal(&answer, &request.body, seen);
    }
    let choices = answer["choices"].as_array().context("no choices")?;
    ensure!(choices.len() == request.choices, "{} choices instead of {}: {}", choices.len(), request.choices, request.body);
    for choice in choices {
        let reason = choice["finish_reason"].as_str().with_context(|| format!("no finish_reason: {choice}"))?;
        let text = choice["text"].as_str().or(choice["message"]["content"].as_str()).unwrap_or_default();
        request.check(text, reason)?;
        seen.finish_reasons.push(reason.to_owned());
    }
    Ok(())
}

/// Asks in the way of another API.
fn other_route(server: SocketAddr, random: &mut Random, seen: &mut Seen) -> anyhow::Result<()> {
    let (path, body, _) = requests::other_route(random, false);
    let response = http::send(server, "POST", path, Some(&body))?;
    seen.status = response.status;
    let answer: Value = serde_json::from_str(&response.read_all()?)?;
    ensure!(seen.status == 200, "{path} {body} was answered with {}: {answer}", seen.status);
    // The one says why it stopped, the other how it stands.
    let reason = answer["stop_reason"].as_str().or(answer["status"].as_str()).with_context(|| format!("no reason: {answer}"))?;
    seen.finish_reasons.push(reason.to_owned());
    Ok(())
}

/// The same, as a stream.
fn other_route_stream(server: SocketAddr, random: &mut Random, seen: &mut Seen) -> anyhow::Result<()> {
    let (path, body, ends) = requests::other_route(random, true);
    let response = http::send(server, "POST", path, Some(&body))?;
    seen.status = response.status;
    let text = response.read_all()?;
    ensure!(seen.status == 200, "{path} {body} was answered with {}: {text}", seen.status);
    let last = text.lines().rev().find_map(|line| line.strip_prefix("event: ")).unwrap_or_default();
    ensure!(ends.contains(&last), "a stream of {path} ended with '{last}': {body}");
    seen.finish_reasons.push(last.to_owned());
    Ok(())
}

/// Has the model call a tool.
fn tools(server: SocketAddr, random: &mut Random, seen: &mut Seen) -> anyhow::Result<()> {
    let body = requests::tool_chat(random);
    let response = http::send(server, "POST", "/v1/chat/completions", Some(&body))?;
    seen.status = response.status;
    let answer: Value = serde_json::from_str(&response.read_all()?)?;
    if seen.status != 200 {
        return refusal(&answer, &body, seen);
    }
    let choice = &answer["choices"][0];
    let reason = choice["finish_reason"].as_str().with_context(|| format!("no finish_reason: {answer}"))?;
    seen.finish_reasons.push(reason.to_owned());
    if reason == "length" {
        return Ok(());
    }
    let calls = choice["message"]["tool_calls"].as_array().filter(|calls| !calls.is_empty());
    for call in calls.with_context(|| format!("no tool was called: {answer}"))? {
        let arguments = call["function"]["arguments"].as_str().unwrap_or_default();
        let arguments: Value = serde_json::from_str(arguments).with_context(|| format!("arguments are not JSON: {answer}"))?;
        ensure!(arguments["city"].is_string() && arguments["days"].is_i64(), "arguments do not satisfy the schema: {arguments}");
    }
    Ok(())
}

/// Sends a request for an answer in one piece and goes away before it comes.
fn leave_whole(server: SocketAddr, random: &mut Random, _: &mut Seen) -> anyhow::Result<()> {
    let request = requests::good(random, false);
    let mut connection = connect(server)?;
    connection.write_all(http_bytes(request.path, &request.body.to_string()).as_bytes())?;
    std::thread::sleep(Duration::from_millis(random.below(40)));
    Ok(())
}

/// Asks for what cannot be given.
fn malformed(server: SocketAddr, random: &mut Random, seen: &mut Seen) -> anyhow::Result<()> {
    let (path, body) = requests::bad(random);
    let answer = raw(server, http_bytes(path, &body).as_bytes())?;
    let head = answer.lines().next().unwrap_or_default();
    seen.status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let asked: String = body.chars().take(100).collect();
    ensure!((400..500).contains(&seen.status), "{path} {asked} was answered with '{head}'");
    let object = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    let error: Value = serde_json::from_str(object).with_context(|| format!("{path} {asked}: not JSON: {object}"))?;
    ensure!(error["error"]["message"].as_str().is_some_and(|m| !m.is_empty()), "{path} {asked}: no message: {error}");
    Ok(())
}

/// Ends in the middle of a request.
fn cut_request(server: SocketAddr, random: &mut Random, _: &mut Seen) -> anyhow::Result<()> {
    let request = requests::good(random, true);
    let bytes = http_bytes(request.path, &request.body.to_string());
    let end = random.below(bytes.len() as u64) as usize;
    let mut connection = connect(server)?;
    connection.write_all(&bytes.as_bytes()[..end])?;
    if random.one_in(2) {
        let _ = connection.shutdown(Shutdown::Write);
        let _ = connection.read(&mut [0; 64]);
    }
    Ok(())
}

/// Speaks no HTTP.
fn garbage(server: SocketAddr, random: &mut Random, _: &mut Seen) -> anyhow::Result<()> {
    let bytes: Vec<u8> = (0..1 + random.below(300)).map(|_| random.next() as u8).collect();
    let mut connection = connect(server)?;
    let _ = connection.write_all(&bytes);
    let _ = connection.shutdown(Shutdown::Write);
    let _ = connection.read(&mut [0; 64]);
    Ok(())
}

/// What dashboards and careful clients do.
fn look_around(server: SocketAddr, random: &mut Random, seen: &mut Seen) -> anyhow::Result<()> {
    let path = random.choose(&["/metrics", "/health", "/load", "/v1/models", "/version"]);
    let response = http::send(server, "GET", path, None)?;
    seen.status = response.status;
    let text = response.read_all()?;
    ensure!(seen.status == 200, "{path}: {} {text}", seen.status);
    Ok(())
}

/// Reads a stream; `go_on` says how long to rest before each chunk, or to go away.
fn read_stream(server: SocketAddr, request: &Request, seen: &mut Seen, go_on: impl Fn(u64) -> Option<Duration>) -> anyhow::Result<()> {
    let mut response = http::send(server, "POST", request.path, Some(&request.body))?;
    seen.status = response.status;
    if seen.status != 200 {
        return refusal(&serde_json::from_str(&response.read_all()?)?, &request.body, seen);
    }
    let (mut pending, mut texts, mut reasons, mut done) = (Vec::new(), HashMap::<u64, String>::new(), HashMap::<u64, String>::new(), false);
    for chunk in 0.. {
        let Some(rest) = go_on(chunk) else { return Ok(()) };
        std::thread::sleep(rest);
        let Some(bytes) = response.chunk().with_context(|| format!("asked {}", request.body))? else { break };
        pending.extend(bytes);
        while let Some(end) = pending.windows(2).position(|w| w == b"\n\n") {
            let event: Vec<u8> = pending.drain(..end + 2).collect();
            let data = std::str::from_utf8(&event)?.trim().strip_prefix("data: ").context("not an event")?.to_owned();
            if data == "[DONE]" {
                done = true;
                continue;
            }
            let event: Value = serde_json::from_str(&data)?;
            ensure!(event.get("error").is_none(), "the stream ended with {event}");
            for choice in event["choices"].as_array().into_iter().flatten() {
                let index = choice["index"].as_u64().context("a choice without an index")?;
                let text = choice["text"].as_str().or(choice["delta"]["content"].as_str()).unwrap_or_default();
                texts.entry(index).or_default().push_str(text);
                if let Some(reason) = choice["finish_reason"].as_str() {
                    reasons.insert(index, reason.to_owned());
                }
            }
        }
    }
    ensure!(done, "a stream ended without [DONE]: {}", request.body);
    ensure!(reasons.len() == request.choices, "{} of {} choices ended with a reason: {}", reasons.len(), request.choices, request.body);
    for (index, reason) in reasons {
        request.check(texts.get(&index).map_or("", String::as_str), &reason)?;
        seen.finish_reasons.push(reason);
    }
    Ok(())
}

/// Refusing a good request is right only when the server is full, or has not learnt a field yet and says so.
fn refusal(answer: &Value, body: &Value, seen: &mut Seen) -> anyhow::Result<()> {
    let message = answer["error"]["message"].as_str().unwrap_or_default();
    match seen.status {
        503 => Ok(()),
        400 if message.contains("not supported") => {
            seen.refused = answer["error"]["param"].as_str().map(str::to_owned);
            Ok(())
        }
        status => bail!("{body} was answered with {status}: {answer}"),
    }
}

impl Request {
    fn check(&self, text: &str, reason: &str) -> anyhow::Result<()> {
        ensure!(["stop", "length"].contains(&reason), "an answer ended with '{reason}': {}", self.body);
        match self.promise.as_ref().filter(|_| reason == "stop") {
            Some(Promise::Json) => {
                drop(serde_json::from_str::<Value>(text).with_context(|| format!("not the JSON that was asked for: {text}"))?)
            }
            Some(Promise::OneOf(answers)) => ensure!(answers.contains(&text), "'{text}' is none of {answers:?}"),
            None => {}
        }
        Ok(())
    }
}

fn http_bytes(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: soak\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

fn connect(server: SocketAddr) -> anyhow::Result<TcpStream> {
    let connection = TcpStream::connect(server).context("cannot connect")?;
    connection.set_read_timeout(Some(Duration::from_secs(60)))?;
    Ok(connection)
}

/// Sends bytes and reads all that comes.
fn raw(server: SocketAddr, bytes: &[u8]) -> anyhow::Result<String> {
    let mut connection = connect(server)?;
    connection.write_all(bytes)?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer)
}
