//! `cargo xtask build-ebpf`: builds the kernel program and refreshes the object that the hint server embeds; with `--check`, proves instead
//! that the committed object is what the source says.
//!
//! The object is committed so that nobody needs a BPF toolchain to run the hint server.

mod object;
mod toolchain;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use self::toolchain::Toolchain;
use crate::build;

const TARGET: &str = "bpfel-unknown-none";

/// Relative to the repository.
const OBJECT: &str = "ebpf/prebuilt/tokenflow.o";

/// What built the object, beside it: other compilers give other instructions.
const BUILT_WITH: &str = "ebpf/prebuilt/built-with.txt";

/// Builds from source; then writes the object to be committed, or with `check` compares it and fails where they differ.
///
/// # Errors
///
/// Where no toolchain can be had (the message says what is missing), the build fails, or the comparison does.
pub fn run(check: bool) -> Result<()> {
    // Paths are cut off by prefix, which needs them as the compiler sees them.
    let repository = &build::root().canonicalize()?;
    let target_dir = build::target_folder();
    let toolchain = Toolchain::find_or_install(&target_dir)?;
    println!("building the kernel program with {}", toolchain.description());

    let built = compile(repository, &target_dir, &toolchain)?;
    let built = fs::read(&built).with_context(|| format!("read {}", built.display()))?;
    let stripped = object::strip(&built).context("strip the debug information")?;

    if check {
        return compare(repository, &toolchain, &stripped);
    }
    write(&repository.join(OBJECT), &stripped)?;
    write(&repository.join(BUILT_WITH), format!("{}\n", toolchain.description()).as_bytes())?;
    println!("wrote {OBJECT}: {} bytes", stripped.len());
    Ok(())
}

/// Where the linked object is.
fn compile(repository: &Path, target_dir: &Path, toolchain: &Toolchain) -> Result<PathBuf> {
    let source = repository.join("ebpf");
    let build_dir = target_dir.join("ebpf");
    let mut cargo = toolchain.cargo();
    cargo.current_dir(&source).args(["build", "--release", "--locked", "--target", TARGET, "-Z", "build-std=core"]);
    cargo.arg("--target-dir").arg(&build_dir).env("CARGO_ENCODED_RUSTFLAGS", rust_flags(&source, toolchain)?.join("\x1f"));
    build::run(&mut cargo)?;
    Ok(build_dir.join(TARGET).join("release/tokenflow"))
}

/// Nothing of this machine may get into the object: neither paths nor its architecture.
fn rust_flags(source: &Path, toolchain: &Toolchain) -> Result<Vec<String>> {
    let cargo_home = match env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?).join(".cargo"),
    };
    let library = toolchain.sysroot().join("lib/rustlib/src/rust");
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    Ok(vec![
        "--cfg=bpf_target_arch=\"x86_64\"".into(),
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        remap(&cargo_home.join("registry/src"), "registry"),
        remap(&library, "rust"),
        remap(source, "ebpf"),
    ])
}

fn compare(repository: &Path, toolchain: &Toolchain, built: &[u8]) -> Result<()> {
    let committed = fs::read(repository.join(OBJECT)).with_context(|| format!("read {OBJECT}"))?;
    let differences = object::differences(&committed, built)?;
    if differences.is_empty() {
        println!("{OBJECT} has the instructions that the source gives");
        return Ok(());
    }
    let built_with = fs::read_to_string(repository.join(BUILT_WITH)).unwrap_or_default();
    let hint = match built_with.trim() == toolchain.description() {
        true => "the source has changed since",
        false => "it was built by another toolchain, which may be all there is to it",
    };
    bail!(
        "{OBJECT} is not what the source gives ({}): {hint}. Committed: {}. Here: {}. Run `cargo xtask build-ebpf` and commit what it writes",
        differences.join("; "),
        built_with.trim(),
        toolchain.description()
    )
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::create_dir_all(path.parent().context("a file in a folder")?)?;
    fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}

/// Runs to the end and returns what it printed; `None` where it is not there or fails.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}
