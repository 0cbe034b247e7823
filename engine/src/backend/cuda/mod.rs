//! GPUs: the trait's operations as launches of the kernels beside this file. Which driver carries them out, [`tokenflow_gpu`] decides.
//!
//! Everything is issued on one stream, in program order, and the host waits only where it reads. In the steady state nothing is allocated:
//! buffers hold from the first pass on what the largest step needs, and a step's indices go through pinned memory in one copy.

pub mod args;
mod attention;
mod batch;
mod buffer;
mod config;
mod device;
mod experts;
mod graphs;
mod kv;
mod library;
mod linear;
mod memory;
mod ops;
mod pointwise;
mod sampling;
mod sources;
mod upload;
pub mod weights;

use std::{collections::HashSet, sync::Arc};

use parking_lot::Mutex;
use tokenflow_gpu::{Gpu, Vendor, kernels::LoadOptions};

pub use batch::CudaBatch;
pub use buffer::{Buffer, CudaVector};
pub use config::{CudaConfig, KvType, Needs};
pub use kv::{CudaHostKvCache, CudaKvCache};
pub use library::all_sources;
pub use sampling::CudaSampled;
pub use weights::CudaMatrix;

use self::{device::Device, graphs::Graphs, memory::Scratch, sampling::Sampler, upload::Upload};
use super::BackendError;

/// A model's operations on one GPU.
pub struct CudaBackend {
    // In this order: what is on the device goes before the device.
    graphs: Mutex<Graphs>,
    scratch: Mutex<Scratch>,
    sampler: Mutex<Sampler>,
    /// A step's index arrays.
    indices: Mutex<Upload>,
    /// The work of prefills, in the one step that finds it otherwise cut than `indices` has it.
    tile_work: Mutex<Upload>,
    /// Lists of blocks to copy.
    copies: Mutex<Upload>,
    /// Query heads that share a KV head in the attention that ran last: what the work of prefills is cut by.
    group: Mutex<usize>,
    /// Shapes of weights that the library of products does not take.
    refused: Mutex<HashSet<[usize; 2]>>,
    loading: weights::Loading,
    device: Arc<Device>,
}

impl CudaBackend {
    /// Loads kernels as `options` say.
    ///
    /// # Errors
    /// When the card cannot do what `config` asks for, kernels cannot be compiled, or there is no room for what every step needs.
    pub fn open(gpu: Gpu, config: CudaConfig, options: &LoadOptions<'_>) -> Result<Self, BackendError> {
        config.check().map_err(BackendError::Device)?;
        let config = CudaConfig { tensor_cores: config.tensor_cores && gpu.info().vendor == Vendor::Nvidia, ..config };
        let device = Device::new(gpu, config, options)?;
        Ok(Self {
            graphs: Mutex::default(),
            scratch: Mutex::new(Scratch::new(&device)),
            sampler: Mutex::new(Sampler::new(&device)?),
            indices: Mutex::new(Upload::new(&device, batch::index_bytes(&device.config))?),
            tile_work: Mutex::new(Upload::new(&device, 1 << 12)?),
            copies: Mutex::new(Upload::new(&device, 1 << 12)?),
            group: Mutex::new(1),
            refused: Mutex::default(),
            loading: weights::Loading::new(&device)?,
            device,
        })
    }

    pub fn gpu(&self) -> &Gpu {
        &self.device.gpu
    }

    pub fn config(&self) -> &CudaConfig {
        &self.device.config
    }
}
