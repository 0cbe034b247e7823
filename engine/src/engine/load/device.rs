//! Which device the model is placed on.

use tokenflow_gpu::GpuError;

use super::{LoadError, Placed, cpu, open::Opened};
use crate::{cli::DeviceArg, config::EngineConfig};

pub(super) fn place(config: &EngineConfig, opened: &Opened) -> Result<Placed, LoadError> {
    match config.device {
        DeviceArg::Auto | DeviceArg::Cpu => cpu::place(config, opened),
        device @ (DeviceArg::Cuda(_) | DeviceArg::Rocm(_)) => {
            let source = GpuError::Unavailable("this version has kernels for CPUs only".to_owned());
            Err(LoadError::Device { device: device.to_string(), source })
        }
    }
}
