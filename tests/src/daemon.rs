//! Starts the project's binaries, waits until they are ready, and ends them whatever happens.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

/// Longest wait for a daemon's ready line; a debug build on a busy machine loads slowly.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a daemon may take to end after SIGTERM before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A running daemon in a process group of its own, so that a terminal's Ctrl-C reaches it through us only. Ends when dropped, and when we die.
pub struct Daemon {
    child: Child,
    name: String,
    log: Arc<Mutex<String>>,
    /// The URL in its ready line, such as `http://127.0.0.1:8000`.
    pub url: String,
}

impl Daemon {
    /// Starts `command` and waits for the line of its stdout that names the URL on which it listens.
    ///
    /// # Errors
    /// When it cannot be started, ends before it is ready, or takes longer than a minute; the message carries its log.
    pub fn start(command: Command) -> anyhow::Result<Self> {
        Self::start_within(command, START_TIMEOUT)
    }

    /// As [`Daemon::start`], with another limit than a minute.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn start_within(mut command: Command, limit: Duration) -> anyhow::Result<Self> {
        let name = PathBuf::from(command.get_program()).file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        end_with_parent(&mut command);
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, ready) = mpsc::channel();
        let stdout = child.stdout.take().context("stdout is piped")?;
        let stderr = child.stderr.take().context("stderr is piped")?;
        copy_lines(stdout, log.clone(), Some(lines));
        copy_lines(stderr, log.clone(), None);
        let mut daemon = Self { child, name, log, url: String::new() };
        daemon.url = daemon.wait_ready(&ready, limit)?;
        Ok(daemon)
    }

    fn wait_ready(&mut self, lines: &mpsc::Receiver<String>, limit: Duration) -> anyhow::Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Some(url) = line.split_whitespace().find(|word| word.starts_with("http://") || word.starts_with("https://")) {
                        return Ok(url.to_owned());
                    }
                }
                Err(RecvTimeoutError::Timeout) => bail!("{} is not ready after {limit:?}:\n{}", self.name, self.log()),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait()?;
                    thread::sleep(Duration::from_millis(50));
                    bail!("{} ended with {status} before it was ready:\n{}", self.name, self.log());
                }
            }
        }
    }

    /// All it has printed so far, both streams.
    pub fn log(&self) -> String {
        self.log.lock().map(|log| log.clone()).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory, bytes.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let kib = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
        Ok(kib.context("VmRSS is missing")? * 1024)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: libc::c_int) {
        // SAFETY: kill(2) on our own child, which has not been waited for.
        unsafe { libc::kill(self.pid() as libc::pid_t, signal) };
    }

    /// Waits for it to end by itself.
    ///
    /// # Errors
    /// When it still runs after `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> anyhow::Result<std::process::ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "{} still runs after {timeout:?}", self.name);
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.signal(libc::SIGTERM);
        if self.wait(STOP_TIMEOUT).is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Has the kernel end the child when the thread that started it dies, even by SIGKILL.
pub fn end_with_parent(command: &mut Command) {
    // SAFETY: prctl(2) is async-signal-safe, as pre_exec demands.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            Ok(())
        });
    }
}

fn copy_lines(source: impl std::io::Read + Send + 'static, log: Arc<Mutex<String>>, lines: Option<mpsc::Sender<String>>) {
    thread::spawn(move || {
        for line in BufReader::new(source).lines().map_while(Result::ok) {
            if let Ok(mut log) = log.lock() {
                log.push_str(&line);
                log.push('\n');
            }
            if let Some(lines) = &lines {
                let _ = lines.send(line);
            }
        }
    });
}

/// A binary of this workspace: beside the running one, beside the folder that a test runs in, or where `cargo build --release` puts it.
///
/// # Errors
/// When it has not been built.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let folders = ["", "..", "../release"].map(|relative| exe.with_file_name(relative));
    let found = folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} has not been built; run `cargo build --release` first"))
}

/// `tokenflow-engine serve` with the flags, on a free port and on the CPU unless they say otherwise.
///
/// # Errors
/// As [`Daemon::start`].
pub fn engine(flags: &[&str]) -> anyhow::Result<Daemon> {
    let mut command = Command::new(binary("tokenflow-engine")?);
    command.arg("serve").args(flags);
    for (flag, value) in [("--port", "0"), ("--device", "cpu")] {
        if !flags.contains(&flag) {
            command.args([flag, value]);
        }
    }
    Daemon::start(command)
}

/// `tokenflow-hint-server` with the flags.
///
/// # Errors
/// As [`Daemon::start`].
pub fn hint_server(flags: &[&str]) -> anyhow::Result<Daemon> {
    let mut command = Command::new(binary("tokenflow-hint-server")?);
    command.args(flags);
    if !flags.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    Daemon::start(command)
}

/// A TCP port that was free a moment ago: `preferred` where it is.
///
/// # Errors
/// When the host has none.
pub fn free_port(preferred: u16) -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind(("0.0.0.0", preferred)).or_else(|_| std::net::TcpListener::bind(("0.0.0.0", 0)))?;
    Ok(listener.local_addr()?.port())
}
