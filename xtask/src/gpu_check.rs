//! `cargo xtask gpu-check`: checks and measures a GPU, here or, with a kit, on a machine that has no Rust and no network.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, ensure};
use clap::Args;
use tokenflow_gpu_emulator::Options;
use tokenflow_tests::kit::assemble;

use crate::{build, build_kernels};

#[derive(Args)]
pub struct GpuCheckArgs {
    /// Only put a kit into this folder, to be carried to a machine with a GPU: at most 60 MB, and one command there
    #[arg(long, value_name = "DIR", conflicts_with_all = ["emulated", "arguments"])]
    kit: Option<PathBuf>,
    /// What compiles kernels for the kit, so that a machine without NVRTC can run them; else that of CUDA_HOME or PATH
    #[arg(long, requires = "kit")]
    nvcc: Option<PathBuf>,
    /// Rehearse: run the kit on an emulated GPU with tiny sizes
    #[arg(long)]
    emulated: bool,
    /// Passed on to the kit's script, such as --only kernels
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// # Errors
/// Where the kit cannot be put together, or something is wrong with the GPU.
pub fn run(args: &GpuCheckArgs) -> anyhow::Result<()> {
    let binaries = build::binaries()?;
    let target = build::target_folder();
    let folder = args.kit.clone().unwrap_or_else(|| target.join("gpu-check-kit"));
    if args.kit.is_some() && !build_kernels::prebuild(&folder.join("kernels"), args.nvcc.as_deref())? {
        println!("nvcc is not here: the kit's kernels are compiled there, where NVRTC has to be");
    }
    let kit = assemble(&binaries, &folder)?;
    println!("{}: {:.1} MB, for Linux on x86-64 with glibc {} or newer", folder.display(), kit.bytes as f64 / 1e6, kit.glibc);
    if args.kit.is_some() {
        println!("there: {}", kit.script.display());
        return Ok(());
    }
    let mut command = Command::new(&kit.script);
    let report = target.join("gpu-check");
    command.env("OUT", &report).args(&args.arguments);
    if args.emulated {
        // Real libraries, where there are any, must not come before the emulated ones.
        command
            .env("TOKENFLOW_CUDA_PATH", "")
            .env("LD_LIBRARY_PATH", tokenflow_gpu_emulator::library_folder(&Options::nvidia()))
            .arg("--tiny");
    }
    let status = command.status().with_context(|| format!("{} cannot be run", kit.script.display()))?;
    ensure!(status.success(), "the check found something wrong: {}", report.join("gpu-check.md").display());
    Ok(())
}
