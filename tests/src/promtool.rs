//! `promtool` of Prometheus, which `cargo xtask test` fetches where it is missing.

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};

/// Names the program where it is not on the PATH.
pub const ENVIRONMENT: &str = "TOKENFLOW_PROMTOOL";

/// The program, or why there is none.
///
/// # Errors
/// When it is neither on the PATH nor where [`ENVIRONMENT`] says.
pub fn find() -> Result<PathBuf, String> {
    let program = std::env::var_os(ENVIRONMENT).map_or_else(|| PathBuf::from("promtool"), PathBuf::from);
    match Command::new(&program).arg("--version").output() {
        Ok(output) if output.status.success() => Ok(program),
        _ => Err(format!("{} does not run (Debian package prometheus); `cargo xtask test` fetches it", program.display())),
    }
}

/// What `promtool check metrics` has to say of a scrape, line by line.
///
/// # Errors
/// When it cannot parse the text.
pub fn check_metrics(program: &PathBuf, text: &str) -> anyhow::Result<Vec<String>> {
    ensure!(!text.is_empty(), "there is nothing to check");
    let mut command = Command::new(program);
    let mut child = command.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().context("stdin is piped")?.write_all(text.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // 3 stands for remarks on style.
    ensure!(matches!(output.status.code(), Some(0 | 3)), "promtool cannot read it: {said}");
    Ok(said.lines().map(str::to_owned).collect())
}
