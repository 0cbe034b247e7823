//! The browser's process, and calls to it over its pipe: JSON messages that end with a zero byte.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::daemon::end_with_parent;

/// Longest wait for an answer; a wait for the page itself must fit.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) struct Pipe {
    child: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    last_id: u64,
    complaints: Vec<String>,
    _profile: TempDir,
}

impl Pipe {
    pub(super) fn start(program: &str) -> anyhow::Result<Self> {
        let profile = tempfile::tempdir()?;
        let mut command = Command::new("sh");
        // The browser reads descriptor 3 and writes 4.
        command.args(["-c", r#"exec "$@" 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null"#, "sh", program]);
        command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run"]);
        command.args(["--disable-background-networking", "--disable-component-update", "--disable-extensions", "--mute-audio"]);
        command.args(["--remote-debugging-pipe", &format!("--user-data-dir={}", profile.path().display())]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        end_with_parent(&mut command);
        let mut child = command.spawn().with_context(|| format!("cannot start {program}"))?;
        let input = child.stdin.take().context("stdin is piped")?;
        let output = child.stdout.take().context("stdout is piped")?;
        let (sender, messages) = channel();
        thread::spawn(move || {
            let whole = |message: Vec<u8>| serde_json::from_slice::<Value>(&message).ok();
            for message in BufReader::new(output).split(0).map_while(Result::ok).filter_map(whole) {
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, input, messages, last_id: 0, complaints: Vec::new(), _profile: profile })
    }

    /// Calls a method of the protocol, of a tab where there is a session.
    pub(super) fn call(&mut self, session: Option<&str>, method: &str, params: Value) -> anyhow::Result<Value> {
        self.last_id += 1;
        let mut request = json!({"id": self.last_id, "method": method, "params": params});
        if let Some(session) = session {
            request["sessionId"] = session.into();
        }
        let mut bytes = serde_json::to_vec(&request)?;
        bytes.push(0);
        self.input.write_all(&bytes).context("the browser is gone")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = match self.messages.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => bail!("{method}: no answer in {PATIENCE:?}"),
                Err(RecvTimeoutError::Disconnected) => bail!("{method}: the browser ended with {:?}", self.child.try_wait()),
            };
            if message["id"] == json!(self.last_id) {
                return match message.get("error") {
                    Some(error) => bail!("{method}: {error}"),
                    None => Ok(message["result"].clone()),
                };
            }
            self.complaints.extend(complaint(&message));
        }
    }

    pub(super) fn take_complaints(&mut self) -> Vec<String> {
        std::mem::take(&mut self.complaints)
    }
}

/// An error that the page or the browser reports about it.
fn complaint(event: &Value) -> Option<String> {
    let params = &event["params"];
    match event["method"].as_str()? {
        "Runtime.exceptionThrown" => Some(params["exceptionDetails"].to_string()),
        "Log.entryAdded" if params["entry"]["level"] == "error" => {
            Some(format!("{} {}", params["entry"]["text"].as_str()?, params["entry"]["url"].as_str().unwrap_or_default()))
        }
        _ => None,
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // Asked to, it ends its helpers too.
        let _ = self.call(None, "Browser.close", json!({}));
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
