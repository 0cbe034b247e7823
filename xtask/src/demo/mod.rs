//! `cargo xtask demo`: the whole path on one machine, from a TCP measurement to a paced token.

mod congested;
mod table;

use std::{process::Command, time::Duration};

use anyhow::Context;
use clap::Args;
use tokenflow_tests::{
    daemon::{self, Daemon},
    http, netns,
};

use crate::{build, interrupt, requirements};

/// What the client asks when nobody says otherwise.
const PROMPT: &str = "What is ownership?";

#[derive(Args)]
pub struct DemoArgs {
    /// Put one client behind a link that is throttled and freed while it streams, and a healthy one beside it (needs root)
    #[arg(long)]
    congested: bool,
    /// What to ask the model
    #[arg(long, default_value = PROMPT)]
    prompt: String,
    /// Tokens per second of a stream on a healthy link, so that a person can follow
    #[arg(long, default_value_t = 60.0)]
    speed: f64,
    /// Use the binaries that lie beside this one instead of building
    #[arg(long)]
    no_build: bool,
}

pub fn run(args: &DemoArgs) -> anyhow::Result<()> {
    interrupt::watch();
    requirements::ensure(requirements::BUILD)?;
    if args.congested {
        requirements::ensure(requirements::NETWORK)?;
        if let Some(reason) = netns::Namespace::unavailable() {
            anyhow::bail!("--congested: {reason}");
        }
        netns::remove_stale();
    }
    if !args.no_build {
        eprintln!("building (the first time takes a few minutes)");
        build::binaries()?;
    }
    let servers = Servers::start(args)?;
    servers.introduce()?;
    if args.congested { congested::run(&servers, args) } else { plain(&servers, args) }
}

/// The two daemons; both end when this is dropped.
struct Servers {
    engine: Daemon,
    hint_server: Daemon,
}

impl Servers {
    fn start(args: &DemoArgs) -> anyhow::Result<Self> {
        let port = daemon::free_port(8000)?.to_string();
        let hint_port = daemon::free_port(5000)?;
        let hint_server = daemon::hint_server(&["--listen", &format!("127.0.0.1:{hint_port}"), "--watch-port", &port])?;
        let host = if args.congested { "0.0.0.0" } else { "127.0.0.1" };
        let speed = args.speed.to_string();
        let mut flags = vec!["--host", host, "--port", &port, "--hint-url", &hint_server.url, "--max-stream-rate", &speed];
        // The link is to show in the rate: tokens that share events would get through all the same.
        flags.extend(args.congested.then_some("--no-coalesce-events"));
        let engine = daemon::engine(&flags)?;
        Ok(Self { engine, hint_server })
    }

    /// Says what runs, and which probe measures and why.
    fn introduce(&self) -> anyhow::Result<()> {
        let hint = http::get_json(&self.hint_server.url, "/hint")?;
        println!("engine       {}  (OpenAI API, demo model)", self.engine.url);
        println!("hint server  {}  (probe: {})", self.hint_server.url, hint["source"].as_str().unwrap_or("none"));
        if let Some(reason) = self.hint_server.log().lines().find_map(probe_reason) {
            println!("             {reason}");
        }
        println!();
        Ok(())
    }
}

/// The part of the hint server's log that tells why it measures as it does.
fn probe_reason(line: &str) -> Option<&str> {
    line.find("measuring with").map(|at| line[at..].trim())
}

fn plain(servers: &Servers, args: &DemoArgs) -> anyhow::Result<()> {
    println!("> {}", args.prompt);
    let mut client = Command::new(daemon::binary("tokenflow-client")?);
    client.args(["chat", "--url", &servers.engine.url, "--hint-url", &servers.hint_server.url, &args.prompt]);
    daemon::end_with_parent(&mut client);
    let mut client = client.spawn().context("cannot start tokenflow-client")?;
    let status = loop {
        if let Some(status) = client.try_wait()? {
            break status;
        }
        // The terminal's Ctrl-C reaches the client too, which says goodbye by itself; a signal sent to us alone does not.
        if interrupt::sleep(Duration::from_millis(50)).is_err() {
            // SAFETY: kill(2) on our own child, which has not been waited for.
            unsafe { libc::kill(client.id() as libc::pid_t, libc::SIGINT) };
            client.wait()?;
            anyhow::bail!("interrupted");
        }
    };
    anyhow::ensure!(status.success(), "tokenflow-client ended with {status}");
    println!();
    println!("Everything that was started has ended. To keep it running, in three terminals:");
    println!("  target/release/tokenflow-hint-server");
    println!("  target/release/tokenflow-engine serve");
    println!("  target/release/tokenflow-client chat        (or: tokenflow-client watch)");
    println!("With a throttled link: cargo xtask demo --congested");
    Ok(())
}
