//! Where nvcc is found, or how it is got.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

use crate::{build, requirements};

/// What PyPI has of the toolkit and compiling needs; the compiler's parts must be of one version.
const PACKAGES: [&str; 6] = [
    "nvidia-cuda-nvcc==13.0.*",
    "nvidia-nvvm==13.0.*",
    "nvidia-cuda-crt==13.0.*",
    "nvidia-cuda-runtime==13.0.*",
    "nvidia-cuda-nvrtc==13.0.*",
    "nvidia-cuda-cccl==13.0.*",
];

/// Where it is installed, in the target folder.
const ENVIRONMENT: &str = "cuda-toolkit";

pub struct Toolkit {
    pub nvcc: PathBuf,
}

impl Toolkit {
    /// One that is there already.
    pub fn present(target: &Path) -> Option<Self> {
        let home = env::var_os("CUDA_HOME").map(|home| PathBuf::from(home).join("bin/nvcc")).filter(|nvcc| nvcc.is_file());
        let nvcc = home.or_else(|| requirements::find("nvcc")).or_else(|| installed(&target.join(ENVIRONMENT)))?;
        Some(Self { nvcc })
    }

    /// # Errors
    /// Names where it was looked for, where it is not found and cannot be installed.
    pub fn find(given: Option<&Path>, target: &Path) -> anyhow::Result<Self> {
        if let Some(nvcc) = given {
            ensure!(nvcc.is_file(), "{} is no compiler", nvcc.display());
            return Ok(Self { nvcc: nvcc.into() });
        }
        if let Some(present) = Self::present(target) {
            return Ok(present);
        }
        let environment = target.join(ENVIRONMENT);
        eprintln!("nvcc is neither in CUDA_HOME nor on PATH: installing it from PyPI into {} (0.5 GB)", environment.display());
        install(&environment)?;
        let nvcc = installed(&environment).with_context(|| format!("PyPI's packages put no nvcc into {}", environment.display()))?;
        Ok(Self { nvcc })
    }
}

fn installed(environment: &Path) -> Option<PathBuf> {
    let versions = fs::read_dir(environment.join("lib")).ok()?;
    versions.filter_map(|version| Some(version.ok()?.path().join("site-packages/nvidia/cu13/bin/nvcc"))).find(|nvcc| nvcc.is_file())
}

fn install(environment: &Path) -> anyhow::Result<()> {
    requirements::ensure(requirements::PYTHON)?;
    build::run(Command::new("python3").args(["-m", "venv"]).arg(environment))?;
    build::run(Command::new(environment.join("bin/pip")).args(["install", "--quiet"]).args(PACKAGES))
}
