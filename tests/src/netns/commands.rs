//! `ip` and `tc`: one command, or many in one process.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use anyhow::{Context, bail};

/// Runs a program to its end.
pub(super) fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("cannot run {program}"))?;
    text(output).with_context(|| format!("{program} {}", arguments.join(" ")))
}

/// Runs the commands in `script`, one a line, in a namespace or in ours.
pub(super) fn batch(program: &str, namespace: Option<&str>, script: &str) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    if let Some(namespace) = namespace {
        command.args(["-n", namespace]);
    }
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {program}"))?;
    let sent = child.stdin.take().context("stdin is piped")?.write_all(script.as_bytes());
    let output = child.wait_with_output()?;
    text(output).and_then(|_| Ok(sent?)).with_context(|| format!("{program} -batch:\n{script}"))
}

fn text(output: Output) -> anyhow::Result<String> {
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}
