//! Kernels by name, compiled file by file when the first of a file is asked for.

use std::{collections::HashMap, sync::Arc};

use parking_lot::{Mutex, RwLock};
use tokenflow_gpu::{Driver, Function, Gpu, GpuError, RawModule};

use super::{config::CudaConfig, sources};

/// Parts of a name.
const MAX_PARTS: usize = 6;

pub(super) struct Library {
    driver: Arc<dyn Driver>,
    functions: RwLock<HashMap<[&'static str; MAX_PARTS], Function>>,
    modules: Mutex<HashMap<&'static str, RawModule>>,
}

impl Library {
    pub(super) fn new(gpu: &Gpu, _config: &CudaConfig) -> Self {
        Self { driver: gpu.driver().clone(), functions: RwLock::default(), modules: Mutex::default() }
    }

    pub(super) fn function(&self, parts: &[&'static str]) -> Result<Function, GpuError> {
        let mut key = [""; MAX_PARTS];
        key[..parts.len()].copy_from_slice(parts);
        if let Some(function) = self.functions.read().get(&key) {
            return Ok(*function);
        }
        let name: &'static str = String::leak(parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("_"));
        let file = sources::file_of(parts).ok_or_else(|| missing(name, "any file"))?;
        let mut modules = self.modules.lock();
        let module = match modules.get(file.name) {
            Some(module) => *module,
            None => {
                let image = self.driver.compile(file.name, file.text, sources::HEADERS, &[])?;
                let module = self.driver.load_module(&image)?;
                modules.insert(file.name, module);
                module
            }
        };
        // SAFETY: the module is loaded, and unloaded with this.
        let raw = unsafe { self.driver.function(module, name)? }.ok_or_else(|| missing(name, file.name))?;
        let function = Function { raw, name };
        self.functions.write().insert(key, function);
        Ok(function)
    }
}

fn missing(name: &str, file: &str) -> GpuError {
    GpuError::Call { call: "kernel lookup", reason: format!("there is no {name} in {file}") }
}

impl Drop for Library {
    fn drop(&mut self) {
        for module in self.modules.get_mut().values() {
            // SAFETY: loaded by this driver; whatever launched its kernels has been waited for.
            unsafe { self.driver.unload_module(*module) };
        }
    }
}
