//! What the commands need from the system: installed from Debian's packages as root, named in one sentence otherwise.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, bail, ensure};

/// A program and the Debian package that brings it.
pub struct Requirement {
    pub program: &'static str,
    pub package: &'static str,
    pub purpose: &'static str,
}

/// Building: the tokenizers crate compiles C and C++.
pub const BUILD: &[Requirement] = &[
    Requirement { program: "cc", package: "build-essential", purpose: "to build the tokenizer's C library" },
    Requirement { program: "c++", package: "build-essential", purpose: "to build the tokenizer's C library" },
];

/// Links that can be throttled.
pub const NETWORK: &[Requirement] = &[
    Requirement { program: "ip", package: "iproute2", purpose: "to make network namespaces" },
    Requirement { program: "tc", package: "iproute2", purpose: "to throttle a link" },
    Requirement { program: "ethtool", package: "ethtool", purpose: "to turn segmentation offload off on a link" },
];

/// What hint servers on many hosts share through.
pub const REDIS: &[Requirement] =
    &[Requirement { program: "redis-server", package: "redis-server", purpose: "to test sharing through Redis" }];

/// What the pages are looked at with.
pub const BROWSER: &[Requirement] = &[Requirement { program: "chromium", package: "chromium", purpose: "to look at the pages" }];

/// Clients that others wrote.
pub const PYTHON: &[Requirement] =
    &[Requirement { program: "python3", package: "python3-venv", purpose: "to run the OpenAI client from PyPI" }];

pub fn is_root() -> bool {
    // SAFETY: geteuid(2) has no preconditions.
    unsafe { libc::geteuid() == 0 }
}

/// Makes sure that every program is there.
///
/// # Errors
/// Names what is missing, what it is for and how to get it, when it cannot be installed from here.
pub fn ensure(requirements: &[Requirement]) -> anyhow::Result<()> {
    let missing: Vec<_> = requirements.iter().filter(|r| find(r.program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<_> = missing.iter().map(|r| r.package).collect();
    packages.dedup();
    if is_root() && find("apt-get").is_some() {
        eprintln!("installing {} with apt-get", packages.join(", "));
        install(&packages)?;
        if requirements.iter().all(|r| find(r.program).is_some()) {
            return Ok(());
        }
    }
    let lines: Vec<_> = missing.iter().map(|r| format!("{} {} (Debian package {})", r.program, r.purpose, r.package)).collect();
    bail!("missing: {}; install with `sudo apt-get install {}`", lines.join("; "), packages.join(" "))
}

/// Installs Debian packages without asking.
///
/// # Errors
/// When apt-get fails even after its lists were refreshed.
pub fn install(packages: &[&str]) -> anyhow::Result<()> {
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(packages);
    // The lists may be old or absent: refreshed only when they do not serve.
    apt(&arguments).or_else(|_| refresh_lists().and_then(|()| apt(&arguments)))
}

fn refresh_lists() -> anyhow::Result<()> {
    apt(&["update"])
}

fn apt(arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-qq", "-o", "Dpkg::Use-Pty=0"]).args(arguments);
    command.stdout(std::process::Stdio::null());
    crate::build::run(&mut command)
}

/// Prometheus' checker: on the PATH, or taken out of Debian's package. The package is not installed, since that would start a server.
///
/// # Errors
/// When it cannot be had.
pub fn promtool() -> anyhow::Result<PathBuf> {
    const PACKAGE: &str = "prometheus";
    let folder = crate::build::target_folder().join("promtool");
    let unpacked = folder.join("usr/bin/promtool");
    if let Some(program) = find("promtool").or_else(|| unpacked.is_file().then(|| unpacked.clone())) {
        return Ok(program);
    }
    ensure!(find("apt-get").is_some(), "promtool is missing (Debian package {PACKAGE})");
    std::fs::create_dir_all(&folder)?;
    // Where the sandbox user of apt may not write, apt says so and goes on.
    let download = || crate::build::run(Command::new("apt-get").args(["-qq", "download", PACKAGE]).current_dir(&folder));
    download().or_else(|error| if is_root() { refresh_lists().and_then(|()| download()) } else { Err(error) })?;
    let archives = std::fs::read_dir(&folder)?.flatten().map(|entry| entry.path());
    let archive = archives.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let archive = archive.context("apt-get download left no package")?;
    crate::build::run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&folder))?;
    std::fs::remove_file(&archive)?;
    ensure!(unpacked.is_file(), "Debian's package {PACKAGE} has no promtool");
    Ok(unpacked)
}

/// A program on the PATH, or where Debian keeps the administrator's.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}
