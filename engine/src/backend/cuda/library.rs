//! The kernels that a backend may launch: files and variants that its types and its model need, loaded when it opens.

use std::collections::HashMap;

use parking_lot::RwLock;
use tokenflow_gpu::{
    Function, Gpu, GpuError, Kernels,
    kernels::{LoadOptions, Sources},
};

use super::{
    config::{CudaConfig, tag},
    sources,
};

/// Parts of a name.
const MAX_PARTS: usize = 6;

pub(super) struct Library {
    kernels: Kernels,
    /// Looked up without making a name.
    known: RwLock<HashMap<[&'static str; MAX_PARTS], Function>>,
}

impl Library {
    pub(super) fn load(gpu: &Gpu, config: &CudaConfig, options: &LoadOptions<'_>) -> Result<Self, GpuError> {
        Ok(Self { kernels: Kernels::load(gpu, &sources_for(config), options)?, known: RwLock::default() })
    }

    /// The kernel whose name `parts` make, with "_" between them; empty ones are left out.
    pub(super) fn function(&self, parts: &[&'static str]) -> Result<Function, GpuError> {
        let mut key = [""; MAX_PARTS];
        key[..parts.len()].copy_from_slice(parts);
        if let Some(function) = self.known.read().get(&key) {
            return Ok(*function);
        }
        let function = self.kernels.get(&parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("_"))?;
        self.known.write().insert(key, function);
        Ok(function)
    }
}

/// What `config` needs of all kernels.
pub(super) fn sources_for(config: &CudaConfig) -> Sources<'static> {
    let is_needed = |name: &str| match name {
        "attention_exact.cu" => config.is_exact(),
        "attention_decode.cu" | "attention_prefill.cu" => !config.is_exact(),
        "linear_tile.cu" => config.has_tiles(),
        "moe_product_tile.cu" => config.has_tiles() && config.needs.as_ref().is_none_or(|needs| needs.experts),
        "moe_product.cu" | "moe_route.cu" => config.needs.as_ref().is_none_or(|needs| needs.experts),
        _ => true,
    };
    let defines = config.needs.as_ref().map_or(Vec::new(), |needs| {
        let dim = super::attention::kernel_dim(needs.head_dim).to_string();
        let (compute, kv) = (tag(config.compute), format!("KV_{}", config.kv_tag()));
        let variants =
            [compute.to_owned(), kv, format!("DIM_{dim}")].into_iter().chain(needs.formats.iter().map(|format| (*format).to_owned()));
        ["TOKENFLOW_ONLY".to_owned()].into_iter().chain(variants.map(|name| format!("TOKENFLOW_{}", name.to_uppercase()))).collect()
    });
    let files = sources::FILES.iter().filter(|file| is_needed(file.name)).copied().collect();
    Sources { files, headers: sources::HEADERS.to_vec(), defines }
}

/// All kernels in all variants, as prebuilt binaries have them.
pub fn all_sources() -> Sources<'static> {
    Sources { files: sources::FILES.to_vec(), headers: sources::HEADERS.to_vec(), defines: Vec::new() }
}
