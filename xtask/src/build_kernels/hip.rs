//! The kernels as AMD's compiler takes them: whether each file compiles, for large cards with warps of 64 lanes and small ones with 32. Nothing
//! is linked, so that only clang and the runtime's headers are needed.

use std::{path::Path, process::Command};

use anyhow::{Context, ensure};

use super::in_parallel;
use crate::requirements;

/// MI200, MI300, and a card for people.
const ARCHITECTURES: [&str; 3] = ["gfx90a", "gfx942", "gfx1100"];

/// What compiles HIP, the newest first.
const COMPILERS: [&str; 7] = ["amdclang++", "clang++-22", "clang++-21", "clang++-20", "clang++-19", "clang-19", "clang++"];

/// For NVIDIA's tensor cores: AMD's cards get other kernels for the same.
const NOT_LAUNCHED: [&str; 4] = ["attention_decode.cu", "attention_prefill.cu", "linear_tile.cu", "moe_product_tile.cu"];

/// # Errors
/// Where there is no compiler, or a file does not compile.
pub fn run(folder: &Path, files: &[&str]) -> anyhow::Result<()> {
    let found = COMPILERS.iter().find_map(|name| requirements::find(name));
    let compiler = found.with_context(|| format!("none of {} is on PATH; Debian has clang-19", COMPILERS.join(", ")))?;
    let output = Command::new(&compiler).arg("--print-targets").output()?;
    let targets = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(targets.contains("amdgcn"), "{} does not compile for AMD's cards", compiler.display());

    let jobs: Vec<(&str, &str)> = files
        .iter()
        .filter(|file| !NOT_LAUNCHED.contains(file))
        .flat_map(|file| ARCHITECTURES.map(|architecture| (*file, architecture)))
        .collect();
    in_parallel(&jobs, |(file, architecture)| {
        let mut command = Command::new(&compiler);
        command.args(["-x", "hip", "-std=c++17", "-O2", "--cuda-device-only", "-nogpulib", "-S", "-o", "/dev/null"]);
        command.args(["-Wall", "-Wno-unused-function", "-Werror"]).arg(format!("--offload-arch={architecture}")).arg(folder.join(file));
        let output = command.output().with_context(|| format!("{} cannot be run", compiler.display()))?;
        let log = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{file} does not compile for {architecture}: {log}");
        Ok(())
    })?;
    println!("{} files for {}", jobs.len() / ARCHITECTURES.len(), ARCHITECTURES.join(", "));
    Ok(())
}
