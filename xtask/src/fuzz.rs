//! `cargo xtask fuzz`: cargo-fuzz over every parser of foreign data, for a bounded time: weights, configs, chat templates and requests, what a
//! hub answers, hints, netlink messages, other hosts' reports, traces.

use std::{
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, ensure};
use clap::Args;

use crate::build::{self, cargo, run as run_command};

/// Pinned, so that a run's answer does not change by itself.
const CARGO_FUZZ: &str = "0.13.2";

/// Targets in engine/fuzz/targets, and the largest input that is worth trying.
const TARGETS: [(&str, u32); 12] = [
    ("safetensors", 4096),
    ("folder", 8192),
    ("gguf", 8192),
    ("config", 8192),
    ("chat_template", 4096),
    ("hub", 4096),
    ("request", 4096),
    ("sse", 4096),
    ("netlink", 4096),
    ("report", 4096),
    ("trace", 8192),
    ("forwarded", 1024),
];

#[derive(Args)]
pub struct FuzzArgs {
    /// How long each target runs
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// One target instead of all
    target: Option<String>,
}

pub fn run(args: &FuzzArgs) -> anyhow::Result<()> {
    let names = TARGETS.map(|(name, _)| name).join(", ");
    let chosen: Vec<_> = TARGETS.into_iter().filter(|(name, _)| args.target.as_deref().is_none_or(|wanted| wanted == *name)).collect();
    ensure!(!chosen.is_empty(), "there is no target {}; known are {names}", args.target.as_deref().unwrap_or_default());
    install()?;
    // The same versions as in the workspace; cargo adds the fuzzer itself.
    let lock = build::root().join("engine/fuzz/Cargo.lock");
    std::fs::copy(build::root().join("Cargo.lock"), &lock).with_context(|| format!("cannot write {}", lock.display()))?;

    let began = Instant::now();
    run_command(cargo_fuzz().args(["build", "--sanitizer", "none"]).args(args.target.as_slice()))?;
    println!("built in {} s", began.elapsed().as_secs());
    for (target, max_len) in chosen {
        println!("fuzzing {target} for {} s", args.seconds);
        let corpus = build::target_folder().join("fuzz/corpus").join(target);
        std::fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
        let mut command = cargo_fuzz();
        command.args(["run", "--sanitizer", "none", target]).arg(corpus).arg(format!("fuzz/seeds/{target}")).arg("--");
        command.arg(format!("-max_total_time={}", args.seconds)).arg(format!("-max_len={max_len}"));
        // Seconds for one input, far above what any should take on a busy machine.
        command.args(["-timeout=25", "-rss_limit_mb=4096", "-verbosity=0", "-print_final_stats=1"]);
        run_command(&mut command).with_context(|| format!("target {target} found an input that does harm, see above"))?;
    }
    println!("{} s altogether", began.elapsed().as_secs());
    Ok(())
}

/// `cargo fuzz` on the toolchain that is there: the counters that it asks the compiler for are not stable yet.
fn cargo_fuzz() -> Command {
    let mut command = cargo();
    command.current_dir(build::root().join("engine"));
    command.env("RUSTC_BOOTSTRAP", "1").env("CARGO_TARGET_DIR", build::target_folder().join("fuzz")).arg("fuzz");
    command
}

fn install() -> anyhow::Result<()> {
    let is_there =
        cargo().args(["fuzz", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if is_there {
        return Ok(());
    }
    eprintln!("installing cargo-fuzz {CARGO_FUZZ} with cargo, once");
    run_command(cargo().args(["install", "--locked", "--quiet", "cargo-fuzz", "--version", CARGO_FUZZ]))
}
