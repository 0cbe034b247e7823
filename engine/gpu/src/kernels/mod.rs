//! Kernels, from texts to functions: compiled for the card at hand file by file, several at once, and kept on disk, so that the next start
//! compiles only what changed. Binaries that were made elsewhere from the same texts are taken where they are given.

mod cache;
mod load;
mod source;

pub use cache::default_folder;
pub use load::{LoadOptions, Origin, Progress};
pub use source::{Source, Sources};

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;

use crate::{Driver, Function, Gpu, GpuError, RawModule};

/// Kernels on a card. Functions that were found in it must not be launched once it is dropped.
pub struct Kernels {
    driver: Arc<dyn Driver>,
    modules: Vec<RawModule>,
    found: RwLock<HashMap<String, Function>>,
}

impl Kernels {
    /// Makes all files' kernels ready; `options.progress` hears of each file.
    ///
    /// # Errors
    /// [`GpuError::Unavailable`] where something must be compiled and there is no compiler, [`GpuError::Compile`] where it refuses.
    pub fn load(gpu: &Gpu, sources: &Sources, options: &LoadOptions) -> Result<Self, GpuError> {
        // Filled one by one, so that what was loaded is unloaded when a later file fails.
        let mut kernels = Self { driver: gpu.driver().clone(), modules: Vec::new(), found: RwLock::default() };
        load::load(gpu, sources, options, &mut kernels.modules)?;
        Ok(kernels)
    }

    /// A kernel by the name that its file gives it.
    ///
    /// # Errors
    /// [`GpuError::NoKernel`] where no file has it.
    pub fn get(&self, name: &str) -> Result<Function, GpuError> {
        if let Some(function) = self.found.read().get(name) {
            return Ok(*function);
        }
        for module in &self.modules {
            // SAFETY: the module is loaded until this is dropped.
            if let Some(raw) = unsafe { self.driver.function(*module, name)? } {
                // A name is looked up once in a process's life for each card.
                let function = Function { raw, name: String::leak(name.to_owned()) };
                self.found.write().insert(name.to_owned(), function);
                return Ok(function);
            }
        }
        Err(GpuError::NoKernel { name: name.to_owned(), arch: self.driver.info().arch.clone() })
    }
}

impl Drop for Kernels {
    fn drop(&mut self) {
        for module in &self.modules {
            // SAFETY: loaded by this driver; by the type's rule its functions are used no more.
            unsafe { self.driver.unload_module(*module) };
        }
    }
}
