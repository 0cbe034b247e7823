//! `cargo xtask build-kernels`: compiles every kernel for every kind of card that it is written for, without a GPU.
//!
//! A register that is spilled to memory costs more than most mistakes, so that none may be; what the kernels use is written beside the
//! binaries, for a look at what changed.

mod report;
mod toolkit;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use clap::Args;

use self::{report::Resources, toolkit::Toolkit};
use crate::build;

/// Ampere, Hopper with its own instructions, Blackwell.
const ARCHITECTURES: [&str; 3] = ["80", "90a", "100"];

/// Relative to the repository.
const KERNELS: &str = "engine/src/backend/cuda/kernels";

#[derive(Args)]
pub struct BuildKernelsArgs {
    /// Compile and report, but keep no binaries
    #[arg(long)]
    check: bool,
    /// Where binaries and the report go [default: kernels in the target folder]
    #[arg(long)]
    out: Option<PathBuf>,
    /// The compiler; else that of CUDA_HOME or PATH, or one installed from PyPI into the target folder (0.5 GB)
    #[arg(long)]
    nvcc: Option<PathBuf>,
}

/// # Errors
/// Where there is no compiler, a kernel does not compile, or one spills registers.
pub fn run(args: &BuildKernelsArgs) -> anyhow::Result<()> {
    let target = build::target_folder();
    let toolkit = Toolkit::find(args.nvcc.as_deref(), &target)?;
    let out = args.out.clone().unwrap_or_else(|| target.join("kernels"));
    fs::create_dir_all(&out).with_context(|| format!("{} cannot be made", out.display()))?;

    let mut sources: Vec<PathBuf> =
        fs::read_dir(build::root().join(KERNELS))?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "cu"));
    sources.sort();
    let mut all: Vec<Resources> = Vec::new();
    for source in &sources {
        all.extend(compile(&toolkit, source, &out, args.check)?);
    }
    let report: Vec<_> = all.iter().map(Resources::to_json).collect();
    fs::write(out.join("report.json"), serde_json::to_vec_pretty(&report)?)?;
    println!("{}", report::table(&all));
    let kernels = all.len() / ARCHITECTURES.len();
    println!("{kernels} kernels of {} files for sm_{}; {}", sources.len(), ARCHITECTURES.join(", sm_"), out.join("report.json").display());

    let spilled: Vec<String> = all.iter().filter(|r| r.spilled_bytes > 0).map(Resources::name_with_architecture).collect();
    ensure!(spilled.is_empty(), "registers are spilled to memory in {}", spilled.join(", "));
    Ok(())
}

fn compile(toolkit: &Toolkit, source: &Path, out: &Path, check: bool) -> anyhow::Result<Vec<Resources>> {
    let name = source.file_stem().and_then(|stem| stem.to_str()).context("a kernel's name")?;
    let binary = out.join(name).with_extension("fatbin");
    let mut command = Command::new(&toolkit.nvcc);
    command.args(["-std=c++17", "-O3", "-fatbin", "-Xptxas", "-v", "--threads", "0", "-Werror", "all-warnings", "-diag-suppress", "177"]);
    command.args(ARCHITECTURES.map(|a| format!("-gencode=arch=compute_{a},code=sm_{a}"))).arg("-o").arg(&binary).arg(source);
    let output = command.output().with_context(|| format!("{} cannot be run", toolkit.nvcc.display()))?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{name}.cu does not compile: {text}");
    let resources = report::parse(name, &text)?;
    let missing = ARCHITECTURES.iter().find(|a| !resources.iter().any(|r| r.architecture == format!("sm_{a}")));
    ensure!(missing.is_none(), "{name}.cu was compiled, but nothing was reported for sm_{}", missing.unwrap_or(&""));
    if check {
        fs::remove_file(&binary)?;
    }
    Ok(resources)
}
