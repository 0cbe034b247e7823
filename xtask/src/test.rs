//! `cargo xtask test`: every test, on what a fresh machine has.

use std::{path::PathBuf, process::Command};

use anyhow::Context;
use clap::Args;
use tokenflow_tests::{netns, promtool, python};

use crate::{
    build::{self, cargo, run as run_command},
    build_ebpf,
    requirements::{self, is_root},
};

/// Versions of the packages that the tests run, pinned so that a test's answer does not change by itself.
const PYTHON_PACKAGES: &[&str] = &[
    "anthropic==2.11.0",
    "gguf==0.19.0",
    "langchain-openai==1.7.3",
    "numpy==2.3.5",
    "openai==3.51.0",
    "schemathesis==4.32.5",
    "sentencepiece==0.2.3",
];

#[derive(Args)]
pub struct TestArgs {
    /// Do not rebuild the kernel program to compare it with the embedded object
    #[arg(long)]
    skip_ebpf_check: bool,
    /// Passed on to `cargo test`, such as a test's name
    #[arg(last = true)]
    arguments: Vec<String>,
}

pub fn run(args: &TestArgs) -> anyhow::Result<()> {
    requirements::ensure(requirements::BUILD)?;
    if is_root() {
        requirements::ensure(requirements::NETWORK)?;
        netns::remove_stale();
    } else {
        eprintln!("will be skipped, since they need root: tests in network namespaces, and those that load the kernel program");
    }
    for (needed, what) in [(requirements::REDIS, "tests with Redis"), (requirements::BROWSER, "tests in a browser")] {
        if let Err(error) = requirements::ensure(needed) {
            eprintln!("will be skipped: {what}: {error:#}");
        }
    }
    let python = python_environment().inspect_err(|error| eprintln!("will be skipped: tests with clients from PyPI: {error:#}"));

    let promtool = requirements::promtool().inspect_err(|error| eprintln!("will be skipped: tests with Prometheus' checker: {error:#}"));

    build::binaries()?;
    let mut tests = cargo();
    tests.args(["test", "--release", "--workspace", "--no-fail-fast"]).args(&args.arguments);
    if let Ok(folder) = &python {
        tests.env(python::ENVIRONMENT, folder);
    }
    if let Ok(program) = &promtool {
        tests.env(promtool::ENVIRONMENT, program);
    }
    run_command(&mut tests)?;

    if !args.arguments.is_empty() || args.skip_ebpf_check {
        return Ok(());
    }
    if is_root() {
        return build_ebpf::run(true);
    }
    eprintln!(
        "skipped: comparing the embedded kernel program with its source, which needs a compiler that root installs: cargo xtask build-ebpf --check"
    );
    Ok(())
}

/// A virtual environment with the pinned clients, made once.
fn python_environment() -> anyhow::Result<PathBuf> {
    requirements::ensure(requirements::PYTHON)?;
    let folder = build::target_folder().join("python");
    let stamp = folder.join("packages.txt");
    let wanted = PYTHON_PACKAGES.join("\n");
    if std::fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(folder);
    }
    let made = run_command(Command::new("python3").args(["-m", "venv"]).arg(&folder));
    if made.is_err() && is_root() {
        // Debian splits the module off the interpreter.
        requirements::install(&["python3-venv"])?;
        run_command(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    } else {
        made?;
    }
    let pip = folder.join("bin/pip");
    run_command(Command::new(pip).args(["install", "--quiet", "--disable-pip-version-check"]).args(PYTHON_PACKAGES))?;
    std::fs::write(&stamp, wanted).context("cannot note what was installed")?;
    Ok(folder)
}
