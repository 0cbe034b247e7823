//! `cargo xtask build-kernels`: compiles every kernel for every kind of card that it is written for, without a GPU.
//!
//! A register that is spilled to memory costs more than most mistakes, so that none may be; what the kernels use is written beside the
//! binaries, for a look at what changed.

mod hip;
mod report;
mod toolkit;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
};

use anyhow::{Context, ensure};
use clap::Args;
use tokenflow_gpu::kernels::{Source, Sources};

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
    /// See instead whether AMD's compiler takes them: clang with the AMDGPU target and HIP's headers
    #[arg(long, conflicts_with_all = ["check", "out", "nvcc"])]
    hip: bool,
}

/// # Errors
/// Where there is no compiler, a kernel does not compile, or one spills registers.
pub fn run(args: &BuildKernelsArgs) -> anyhow::Result<()> {
    let folder = build::root().join(KERNELS);
    let texts = texts(&folder)?;
    if args.hip {
        return hip::run(&folder, &texts.keys().map(String::as_str).filter(|name| name.ends_with(".cu")).collect::<Vec<_>>());
    }
    let target = build::target_folder();
    let toolkit = Toolkit::find(args.nvcc.as_deref(), &target)?;
    let out = args.out.clone().unwrap_or_else(|| target.join("kernels"));
    fs::create_dir_all(&out).with_context(|| format!("{} cannot be made", out.display()))?;

    let (files, headers): (Vec<_>, Vec<_>) =
        texts.iter().map(|(name, text)| Source { name, text }).partition(|source| source.name.ends_with(".cu"));
    let sources = Sources { files, headers, defines: Vec::new() };
    let each = in_parallel(&sources.files, |source| {
        // The name by which the engine finds it, if its texts are the same.
        let binary = out.join(sources.prebuilt_name(*source));
        let resources = compile(&toolkit, &folder.join(source.name), &binary)?;
        if args.check {
            fs::remove_file(&binary)?;
        }
        Ok(resources)
    })?;
    let all = each.concat();
    let report: Vec<_> = all.iter().map(Resources::to_json).collect();
    fs::write(out.join("report.json"), serde_json::to_vec_pretty(&report)?)?;
    println!("{}", report::table(&all));
    let kernels = all.len() / ARCHITECTURES.len();
    println!(
        "{kernels} kernels of {} files for sm_{}; {}",
        sources.files.len(),
        ARCHITECTURES.join(", sm_"),
        out.join("report.json").display()
    );

    let spilled: Vec<String> = all.iter().filter(|r| r.spilled_bytes > 0).map(Resources::name_with_architecture).collect();
    ensure!(spilled.is_empty(), "registers are spilled to memory in {}", spilled.join(", "));
    Ok(())
}

/// Does all jobs, as many at a time as there are processors; results are in the jobs' order.
fn in_parallel<T: Sync, R: Send>(jobs: &[T], work: impl Fn(&T) -> anyhow::Result<R> + Sync) -> anyhow::Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
    let worker = || {
        let mut done = Vec::new();
        while let Some((index, job)) = Some(next.fetch_add(1, Relaxed)).and_then(|index| Some((index, jobs.get(index)?))) {
            let result = work(job);
            if result.is_err() {
                // The others finish what they have begun.
                next.store(jobs.len(), Relaxed);
            }
            done.push((index, result));
        }
        done
    };
    let mut all: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a job does not panic")).collect()
    });
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, result)| result).collect()
}

/// Puts binaries of all kernels into `out`, where there is a compiler; false where there is none.
///
/// # Errors
/// As [`run`].
pub fn prebuild(out: &Path, nvcc: Option<&Path>) -> anyhow::Result<bool> {
    let nvcc = match nvcc {
        Some(nvcc) => nvcc.into(),
        None => match Toolkit::present(&build::target_folder()) {
            Some(toolkit) => toolkit.nvcc,
            None => return Ok(false),
        },
    };
    // Binaries of other texts would never be asked for.
    if out.exists() {
        fs::remove_dir_all(out).with_context(|| format!("{} cannot be removed", out.display()))?;
    }
    run(&BuildKernelsArgs { check: false, out: Some(out.into()), nvcc: Some(nvcc), hip: false })?;
    Ok(true)
}

/// Names and texts of the kernels and their headers.
fn texts(folder: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    let sources = paths.iter().filter(|path| path.extension().is_some_and(|e| e == "cu" || e == "cuh"));
    sources
        .map(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).context("a kernel's name")?;
            Ok((name.to_owned(), fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?))
        })
        .collect()
}

fn compile(toolkit: &Toolkit, source: &Path, binary: &Path) -> anyhow::Result<Vec<Resources>> {
    let name = source.file_stem().and_then(|stem| stem.to_str()).context("a kernel's name")?;
    let mut command = Command::new(&toolkit.nvcc);
    // Variants of a kernel are much alike: compressed they take a tenth.
    command.args([
        "-std=c++17",
        "-O3",
        "-fatbin",
        "-Xfatbin",
        "-compress-all",
        "-Xptxas",
        "-v",
        "-Werror",
        "all-warnings",
        "-diag-suppress",
        "177",
    ]);
    command.args(ARCHITECTURES.map(|a| format!("-gencode=arch=compute_{a},code=sm_{a}"))).arg("-o").arg(binary).arg(source);
    let output = command.output().with_context(|| format!("{} cannot be run", toolkit.nvcc.display()))?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{name}.cu does not compile: {text}");
    let resources = report::parse(name, &text)?;
    let missing = ARCHITECTURES.iter().find(|a| !resources.iter().any(|r| r.architecture == format!("sm_{a}")));
    ensure!(missing.is_none(), "{name}.cu was compiled, but nothing was reported for sm_{}", missing.unwrap_or(&""));
    Ok(resources)
}
