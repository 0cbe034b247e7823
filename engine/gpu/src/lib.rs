//! What the engine needs of a GPU: memory, streams, events, graphs and kernels. [`Driver`] is the seam; CUDA and ROCm implement it, and are
//! found at run time, so that one binary runs with and without them.
//!
//! Libraries are looked for in the folders of `TOKENFLOW_CUDA_PATH` (also those of Python's packages inside of them), then where the loader
//! looks, then in `CUDA_HOME`, `CUDA_PATH`, `/usr/local/cuda`, the active virtual or Conda environment, `ROCM_PATH` and `/opt/rocm`. Compiled kernels are kept in
//! `TOKENFLOW_CACHE` or the user's cache folder.

mod choice;
mod cuda;
mod driver;
mod error;
mod host;
pub mod kernels;
mod library;
mod memory;
mod rocm;
mod rtc;
mod stream;

pub use choice::DeviceChoice;
pub use cuda::CudaDriver;
pub use driver::{
    DeviceInfo, DevicePtr, Driver, Element, Grid, MemoryInfo, Product, RawEvent, RawFunction, RawGraph, RawModule, RawStream, Vendor,
};
pub use error::GpuError;
pub use kernels::Kernels;
pub use memory::{DeviceMemory, PinnedMemory};
pub use rocm::RocmDriver;
pub use stream::{Event, Function, Graph, Stream};

use std::sync::Arc;

/// A card that was opened. Clones are the same card.
#[derive(Clone)]
pub struct Gpu {
    driver: Arc<dyn Driver>,
}

impl Gpu {
    /// The card that is asked for, ready for use.
    ///
    /// # Errors
    /// [`GpuError::Unavailable`] where there is none, with what was looked for and where; where the choice is left open, an engine may take
    /// the CPU then.
    pub fn open(choice: DeviceChoice) -> Result<Self, GpuError> {
        let cuda = |ordinal| CudaDriver::open(ordinal).map(|driver| Self::new(Arc::new(driver)));
        let rocm = |ordinal| RocmDriver::open(ordinal).map(|driver| Self::new(Arc::new(driver)));
        match choice {
            DeviceChoice::Cuda(ordinal) => cuda(ordinal),
            DeviceChoice::Rocm(ordinal) => rocm(ordinal),
            DeviceChoice::Auto => match cuda(None) {
                Err(GpuError::Unavailable(no_cuda)) => rocm(None).map_err(|error| match error {
                    GpuError::Unavailable(no_rocm) => GpuError::Unavailable(format!("{no_cuda}; {no_rocm}")),
                    error => error,
                }),
                opened => opened,
            },
        }
    }

    pub fn new(driver: Arc<dyn Driver>) -> Self {
        Self { driver }
    }

    pub fn driver(&self) -> &Arc<dyn Driver> {
        &self.driver
    }

    pub fn info(&self) -> &DeviceInfo {
        self.driver.info()
    }

    /// # Errors
    /// When the driver fails.
    pub fn memory(&self) -> Result<MemoryInfo, GpuError> {
        self.driver.memory()
    }

    /// Memory of the card whose contents are undefined.
    ///
    /// # Errors
    /// When it is short.
    pub fn allocate(&self, bytes: usize) -> Result<DeviceMemory, GpuError> {
        DeviceMemory::new(&self.driver, bytes)
    }

    /// Memory of the host that the card reads and writes at the link's speed; zeroed.
    ///
    /// # Errors
    /// When it is short.
    pub fn allocate_pinned(&self, bytes: usize) -> Result<PinnedMemory, GpuError> {
        PinnedMemory::new(&self.driver, bytes)
    }

    /// # Errors
    /// When the driver fails.
    pub fn stream(&self) -> Result<Stream, GpuError> {
        Stream::new(&self.driver)
    }

    /// # Errors
    /// When the driver fails.
    pub fn event(&self) -> Result<Event, GpuError> {
        Event::new(&self.driver, false)
    }

    /// An event that [`Event::seconds_since`] works with.
    ///
    /// # Errors
    /// When the driver fails.
    pub fn timed_event(&self) -> Result<Event, GpuError> {
        Event::new(&self.driver, true)
    }
}
