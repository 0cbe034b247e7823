//! Builds the workspace with the cargo that runs us.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, ensure};

/// The workspace's folder.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// `cargo` in the workspace's folder.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs a command that shows its output.
///
/// # Errors
/// When it cannot be started or fails; the message names it.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let shown = format!("{:?}", command).replace('"', "");
    let status = command.status().with_context(|| format!("cannot run {shown}"))?;
    ensure!(status.success(), "`{shown}` ended with {status}");
    Ok(())
}

/// Builds the binaries with optimisation and returns their folder.
///
/// # Errors
/// When the build fails.
pub fn binaries() -> anyhow::Result<PathBuf> {
    run(cargo().args([
        "build",
        "--release",
        "-p",
        "tokenflow-engine",
        "-p",
        "tokenflow-hint-server",
        "-p",
        "tokenflow-client",
        "-p",
        "tokenflow-gpu-check",
    ]))?;
    Ok(target_folder().join("release"))
}

/// Where cargo puts what it builds.
pub fn target_folder() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    }
}
