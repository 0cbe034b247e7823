//! What builds for BPF: a rustc with the source of its `core` beside it, and a bpf-linker made with the same LLVM.
//!
//! Looked for in this order: a rustup nightly with rust-src and a bpf-linker on the PATH; the distribution's own rustc and sources (Debian's
//! rustc-web and rust-web-src), with a bpf-linker that is built once into the target folder. What is missing for the latter is installed
//! where this runs as root on Debian, else named.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use super::output;
use crate::{build, requirements};

const LINKER: &str = "bpf-linker";
const LINKER_VERSION: &str = "0.13.0";

/// LLVM major versions that this bpf-linker can be built for.
const LINKER_LLVMS: [u32; 3] = [21, 22, 23];

/// Debian's rustc, wherever rustup's stands on the PATH.
const SYSTEM_RUSTC: &str = "/usr/bin/rustc";

pub struct Toolchain {
    rustc: Rustc,
    linker: PathBuf,
    linker_version: String,
}

/// A compiler whose `core` can be built.
struct Rustc {
    path: PathBuf,
    sysroot: PathBuf,
    /// As in "1.96.0 (ac68faa20 2026-05-25)".
    version: String,
    /// As in "22.1.8".
    llvm: String,
}

impl Toolchain {
    pub fn find_or_install(target_dir: &Path) -> Result<Self> {
        if let (Some(rustc), Some(linker)) = (nightly(), requirements::find(LINKER)) {
            println!(
                "using rustup's nightly (LLVM {}) and {}: where linking fails, that {LINKER} was built with another LLVM",
                rustc.llvm,
                linker.display()
            );
            return Self::new(rustc, linker);
        }
        let rustc = system_rustc()?;
        let linker = system_linker(&rustc, target_dir)?;
        Self::new(rustc, linker)
    }

    fn new(rustc: Rustc, linker: PathBuf) -> Result<Self> {
        let version = output(Command::new(&linker).arg("--version")).with_context(|| format!("run {}", linker.display()))?;
        let linker_version = version.trim().trim_start_matches(LINKER).trim().to_owned();
        Ok(Self { rustc, linker, linker_version })
    }

    /// One line, the same wherever the same versions are installed.
    pub fn description(&self) -> String {
        format!("rustc {}, LLVM {}, {LINKER} {}", self.rustc.version, self.rustc.llvm, self.linker_version)
    }

    pub fn sysroot(&self) -> &Path {
        &self.rustc.sysroot
    }

    /// A cargo that compiles with this toolchain, whatever the surrounding cargo was told.
    pub fn cargo(&self) -> Command {
        let mut cargo = build::cargo();
        for variable in ["CARGO_TARGET_DIR", "RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTUP_TOOLCHAIN"] {
            cargo.env_remove(variable);
        }
        // Building `core` is not stable; a release compiler does it on this word.
        cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", &self.rustc.path).env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &self.linker);
        cargo
    }
}

impl Rustc {
    /// `None` where it is not installed, or not with the source of `core`.
    fn at(path: PathBuf) -> Option<Self> {
        let sysroot = PathBuf::from(output(Command::new(&path).args(["--print", "sysroot"]))?.trim());
        if !sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists() {
            return None;
        }
        let verbose = output(Command::new(&path).arg("-vV"))?;
        let (version, llvm) = parse_version(&verbose)?;
        Some(Self { path, sysroot, version, llvm })
    }

    fn llvm_major(&self) -> Option<u32> {
        self.llvm.split('.').next()?.parse().ok()
    }
}

/// From `rustc -vV`: the version with commit and date, and LLVM's.
fn parse_version(verbose: &str) -> Option<(String, String)> {
    let first = verbose.lines().next()?.strip_prefix("rustc ")?;
    // "1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)": what comes after the date is no part of the version.
    let version = first.split_inclusive(')').next()?;
    let llvm = verbose.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    Some((version.trim().into(), llvm.trim().into()))
}

fn nightly() -> Option<Rustc> {
    let path = output(Command::new("rustup").args(["which", "--toolchain", "nightly", "rustc"]))?;
    Rustc::at(path.trim().into())
}

fn system_rustc() -> Result<Rustc> {
    if let Some(rustc) = Rustc::at(SYSTEM_RUSTC.into()) {
        return Ok(rustc);
    }
    install(
        &["rustc-web", "rust-web-src"],
        " and then, N being the LLVM version that `/usr/bin/rustc -vV` shows, llvm-N-dev and libpolly-N-dev",
    )?;
    Rustc::at(SYSTEM_RUSTC.into()).with_context(|| format!("{SYSTEM_RUSTC} has no source of `core` beside it after the installation"))
}

/// The bpf-linker of the target folder, for this rustc's LLVM.
fn system_linker(rustc: &Rustc, target_dir: &Path) -> Result<PathBuf> {
    let llvm = rustc.llvm_major().with_context(|| format!("{SYSTEM_RUSTC} -vV names no LLVM version"))?;
    ensure!(
        LINKER_LLVMS.contains(&llvm),
        "{SYSTEM_RUSTC} uses LLVM {llvm}, and {LINKER} {LINKER_VERSION} knows {LINKER_LLVMS:?}: install a rustup nightly with rust-src and {LINKER}"
    );
    let root = target_dir.join(format!("{LINKER}-{LINKER_VERSION}-llvm-{llvm}"));
    let linker = root.join("bin").join(LINKER);
    if linker.exists() {
        return Ok(linker);
    }

    let config = format!("llvm-config-{llvm}");
    let llvm_dev = format!("llvm-{llvm}-dev");
    let polly_dev = format!("libpolly-{llvm}-dev");
    let packages = [llvm_dev.as_str(), polly_dev.as_str(), "libzstd-dev", "zlib1g-dev", "libxml2-dev"];
    if !packages.iter().all(|package| is_installed(package)) {
        install(&packages, "")?;
    }
    let prefix = output(Command::new(&config).arg("--prefix")).with_context(|| format!("run {config}, of package {llvm_dev}"))?;

    println!("building {LINKER} {LINKER_VERSION} with LLVM {llvm}, once");
    let build_dir = root.join("build");
    let mut cargo = build::cargo();
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS").env("LLVM_PREFIX", prefix.trim());
    cargo.args([
        "install",
        LINKER,
        "--version",
        LINKER_VERSION,
        "--locked",
        "--no-default-features",
        "--features",
        &format!("llvm-{llvm}"),
    ]);
    cargo.arg("--root").arg(&root).arg("--target-dir").arg(&build_dir);
    build::run(&mut cargo)?;
    // Hundreds of megabytes that nothing needs again.
    _ = fs::remove_dir_all(&build_dir);
    Ok(linker)
}

/// Installs Debian packages, or says which are missing (and, with `next`, which will be after them) and what else would do.
fn install(packages: &[&str], next: &str) -> Result<()> {
    let list = packages.join(" ");
    if !requirements::is_root() || requirements::find("apt-get").is_none() {
        bail!(
            "no toolchain for BPF: install either a rustup nightly (`rustup toolchain install nightly --component rust-src`) and \
             `cargo install {LINKER}`, or, on Debian, `apt-get install {list}`{next}"
        );
    }
    println!("installing {list}");
    requirements::install(packages)
}

fn is_installed(package: &str) -> bool {
    output(Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status}", package]))
        .is_some_and(|status| status == "installed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_rustup_and_from_debian() {
        let debian = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\nbinary: rustc\nhost: x\nLLVM version: 22.1.8\n";
        assert_eq!(parse_version(debian), Some(("1.96.0 (ac68faa20 2026-05-25)".into(), "22.1.8".into())));
        let nightly = "rustc 1.98.0-nightly (0123abcde 2026-06-01)\nLLVM version: 22.1.9\n";
        assert_eq!(parse_version(nightly), Some(("1.98.0-nightly (0123abcde 2026-06-01)".into(), "22.1.9".into())));
        assert_eq!(parse_version("rustc 1.98.0\n"), None);
    }
}
