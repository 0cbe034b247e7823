//! Which device the model is placed on.

use tokenflow_gpu::{DeviceChoice, Gpu, GpuError};

use super::{LoadError, Placed, cpu, gpu, kernels, open::Opened};
use crate::{cli::DeviceArg, config::EngineConfig};

pub(super) enum Device {
    Cpu,
    Gpu(Gpu),
}

impl Device {
    /// # Errors
    /// When a GPU was asked for and cannot be opened.
    pub(super) fn open(choice: DeviceArg) -> Result<Self, LoadError> {
        match choice {
            DeviceArg::Cpu => Ok(Self::Cpu),
            DeviceArg::Gpu(choice) => match Gpu::open(choice) {
                Ok(gpu) => Ok(Self::Gpu(gpu)),
                Err(reason) => Err(LoadError::Device { device: choice.to_string(), reason }),
            },
            DeviceArg::Auto => match Gpu::open(DeviceChoice::Auto).and_then(with_kernels) {
                Ok(gpu) => Ok(Self::Gpu(gpu)),
                Err(reason) => {
                    tracing::info!(%reason, "the model runs on the CPU");
                    Ok(Self::Cpu)
                }
            },
        }
    }

    pub(super) fn place(&self, config: &EngineConfig, opened: &Opened) -> Result<Placed, LoadError> {
        match self {
            Self::Cpu => cpu::place(config, opened),
            Self::Gpu(gpu) => gpu::place(config, opened, gpu),
        }
    }
}

/// The card, if there is a way to its kernels: a driver alone compiles none.
fn with_kernels(gpu: Gpu) -> Result<Gpu, GpuError> {
    if kernels::prebuilt().is_none() {
        gpu.driver().compiler()?;
    }
    Ok(gpu)
}
