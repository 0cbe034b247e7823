//! The engine and the hint server of one run, with the same flags in every mode but `--pacing`.

use std::path::Path;

use anyhow::Context;

use super::Variant;
use crate::{
    daemon::{self, Daemon},
    http,
};

/// What every engine of an experiment is started with: one thread computes, so that on a machine of two cores the other sends and reads.
const ENGINE_FLAGS: &[&str] = &["--host", "0.0.0.0", "--device", "cpu", "--threads", "1", "--max-num-seqs", "64", "--disable-log-requests"];

/// Both daemons; they end when this is dropped.
pub(super) struct Servers {
    pub engine: Daemon,
    pub port: u16,
    hints: Option<Daemon>,
    /// Where the hint server listens, so that it can come back there.
    hint_url: String,
}

impl Servers {
    /// Starts both and has the engine run once, so that no stream pays for a first time.
    ///
    /// # Errors
    /// When one does not start; the message carries its log.
    pub fn start(model: &Path, variant: &Variant, flags: &[String]) -> anyhow::Result<Self> {
        let port = daemon::free_port(0)?;
        let hints = hint_server("127.0.0.1:0", port)?;
        let hint_url = hints.url.clone();
        let port_text = port.to_string();
        let mut all = vec![model.to_str().context("the model's folder has a name that is not UTF-8")?];
        all.extend(ENGINE_FLAGS);
        all.extend(["--port", &port_text, "--hint-url", &hint_url, "--pacing", variant.mode.name()]);
        if let Some(law) = &variant.law {
            all.extend(["--pacing-law", law]);
        }
        all.extend(flags.iter().map(String::as_str));
        let engine = daemon::engine(&all)?;
        let warm = serde_json::json!({"prompt": "fn main", "max_tokens": 8, "ignore_eos": true});
        let (status, answer) = http::post_json(&format!("http://127.0.0.1:{port}"), "/v1/completions", &warm)?;
        anyhow::ensure!(status == 200, "the engine answers {status}: {answer}");
        Ok(Self { engine, port, hints: Some(hints), hint_url })
    }

    /// The hint server's URL while it runs.
    pub fn hint_url(&self) -> Option<&str> {
        self.hints.as_ref().map(|hints| hints.url.as_str())
    }

    /// What probe the hint server measures with.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn probe(&self) -> anyhow::Result<String> {
        let hint = http::get_json(&self.hint_url, "/hint")?;
        Ok(hint["source"].as_str().context("the hint server names no source")?.to_owned())
    }

    /// The hint server dies without a word.
    pub fn kill_hints(&mut self) {
        if let Some(mut hints) = self.hints.take() {
            hints.signal(libc::SIGKILL);
            let _ = hints.wait(std::time::Duration::from_secs(5));
        }
    }

    /// It returns.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_hints(&mut self) -> anyhow::Result<()> {
        self.hints = Some(hint_server(self.hint_url.trim_start_matches("http://"), self.port)?);
        Ok(())
    }

    /// Processor seconds so far: the engine, the hint server, the clients with all the rest of the testbed (this process).
    pub fn processor_seconds(&self) -> Vec<(String, f64)> {
        let mut seconds = vec![("engine".to_owned(), processor_seconds(self.engine.pid()))];
        if let Some(hints) = &self.hints {
            seconds.push(("hint-server".to_owned(), processor_seconds(hints.pid())));
        }
        seconds.push(("clients".to_owned(), processor_seconds(std::process::id())));
        seconds
    }
}

fn hint_server(listen: &str, port: u16) -> anyhow::Result<Daemon> {
    daemon::hint_server(&["--listen", listen, "--watch-port", &port.to_string()])
}

/// User and system time of a process and its threads; 0 of one that is gone.
fn processor_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold spaces; utime and stime are the 12th and 13th field behind it (proc_pid_stat(5)).
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = fields.get(11..13).unwrap_or_default().iter().filter_map(|field| field.parse::<f64>().ok()).sum();
    // SAFETY: sysconf(3) has no preconditions.
    ticks / unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64
}
