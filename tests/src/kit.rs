//! Puts together the folder that checks a GPU on a machine without Rust or network: binaries, one script, a page.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

/// What the kit carries.
pub const BINARIES: [&str; 2] = ["tokenflow-engine", "tokenflow-gpu-check"];

/// Most that the whole folder may take.
const MOST_BYTES: u64 = 60 << 20;

const RUN: &str = include_str!("../../engine/gpu-check/kit/run");
const README: &str = include_str!("../../engine/gpu-check/kit/README.md");

/// What was put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kit {
    /// The script to run.
    pub script: PathBuf,
    pub bytes: u64,
    /// The oldest C library that all binaries run with, as in "2.34".
    pub glibc: String,
}

/// Fills `folder` with the binaries of `binaries`, without what only debuggers need, and what runs them. Another kit's files there give way.
///
/// # Errors
/// When a binary is not there, a file cannot be written, or the folder becomes too large.
pub fn assemble(binaries: &Path, folder: &Path) -> anyhow::Result<Kit> {
    let bin = folder.join("bin");
    fs::create_dir_all(&bin).with_context(|| format!("{} cannot be made", bin.display()))?;
    let mut newest = (0, 0);
    for name in BINARIES {
        let (from, to) = (binaries.join(name), bin.join(name));
        strip(&from, &to)?;
        newest = newest.max(glibc_version(&fs::read(&to)?).with_context(|| format!("{name} names no version of the C library"))?);
    }
    let glibc = format!("{}.{}", newest.0, newest.1);
    fs::write(folder.join("README.md"), README.replace("{GLIBC}", &glibc))?;
    let script = folder.join("run");
    fs::write(&script, RUN)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let bytes = size(folder)?;
    ensure!(bytes <= MOST_BYTES, "{} takes {} MiB, more than the {} of a kit", folder.display(), bytes >> 20, MOST_BYTES >> 20);
    Ok(Kit { script, bytes, glibc })
}

fn strip(from: &Path, to: &Path) -> anyhow::Result<()> {
    let output = Command::new("strip").arg("-o").arg(to).arg(from).output().context("strip cannot be run (Debian package binutils)")?;
    ensure!(output.status.success(), "strip {}: {}", from.display(), String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// The newest version that a dynamic binary asks its C library for: symbols' versions are strings in it.
fn glibc_version(binary: &[u8]) -> Option<(u32, u32)> {
    const PREFIX: &[u8] = b"\0GLIBC_";
    let starts = binary.windows(PREFIX.len()).enumerate().filter(|(_, window)| *window == PREFIX).map(|(i, _)| i + PREFIX.len());
    let version = |start: usize| {
        let text: &[u8] = binary[start..].split(|&byte| byte == 0).next()?;
        let mut numbers = std::str::from_utf8(text).ok()?.split('.').map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    starts.filter_map(version).max()
}

fn size(folder: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.metadata()?;
        // What runs have left behind is no part of it.
        let own = !["report", "cache"].contains(&entry.file_name().to_string_lossy().as_ref());
        bytes += if kind.is_dir() && own { size(&entry.path())? } else { u64::from(own) * kind.len() };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_that_is_asked_for_is_found() {
        let binary = b"\x7fELF\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.4\0GLIBC_PRIVATE\0GLIBC_x\0";
        assert_eq!(glibc_version(binary), Some((2, 34)));
        assert_eq!(glibc_version(b"\x7fELF"), None);
    }
}
