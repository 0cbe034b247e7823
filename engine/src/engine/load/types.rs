//! What `--dtype` and `--kv-cache-dtype` come to.

use tokenflow_gpu::Element;

use super::LoadError;
use crate::{
    backend::{
        DType,
        cpu::{ComputeType, KvType},
    },
    cli::{DTypeArg, KvCacheDTypeArg},
    config::EngineConfig,
    weights::Checkpoint,
};

/// On a CPU, products of bf16 are in f32 or bf16, and unencoded weights are kept as they are unless told otherwise.
pub(super) struct CpuTypes {
    /// vLLM's name of the type of products.
    pub(super) name: &'static str,
    pub(super) compute: ComputeType,
    /// What unencoded weights are converted to.
    pub(super) weights: Option<DType>,
    pub(super) kv: KvType,
}

impl CpuTypes {
    pub(super) fn new(config: &EngineConfig, is_float32: bool) -> Self {
        let dtype = match config.dtype {
            DTypeArg::Auto if is_float32 => DTypeArg::Float32,
            dtype => dtype,
        };
        let (name, compute, weights, kv) = match dtype {
            DTypeArg::Auto => ("bfloat16", ComputeType::BF16, None, KvType::BF16),
            DTypeArg::Bfloat16 => ("bfloat16", ComputeType::BF16, Some(DType::BF16), KvType::BF16),
            // Products of f16 weights are in f32.
            DTypeArg::Float16 => ("float16", ComputeType::F32, Some(DType::F16), KvType::F16),
            // Narrower weights are exact in f32 as they are.
            DTypeArg::Float32 => ("float32", ComputeType::F32, None, KvType::F32),
        };
        Self { name, compute, weights, kv: kv_type(config.kv_cache_dtype, kv) }
    }
}

fn kv_type(asked: KvCacheDTypeArg, as_computed: KvType) -> KvType {
    match asked {
        KvCacheDTypeArg::Auto => as_computed,
        KvCacheDTypeArg::Bfloat16 => KvType::BF16,
        KvCacheDTypeArg::Float16 => KvType::F16,
        KvCacheDTypeArg::Float32 => KvType::F32,
        KvCacheDTypeArg::Fp8 => KvType::Fp8,
    }
}

/// On a GPU, all that is not encoded is of one type: the checkpoint's unless told otherwise.
pub(super) struct GpuTypes {
    /// vLLM's name of the type of products.
    pub(super) name: &'static str,
    pub(super) compute: Element,
    pub(super) kv: KvType,
}

impl GpuTypes {
    /// # Errors
    /// When keys and values cannot be kept in the type that is asked for.
    pub(super) fn new(config: &EngineConfig, checkpoint: &Checkpoint) -> Result<Self, LoadError> {
        let dtype = match config.dtype {
            DTypeArg::Auto if checkpoint.is_float32() => DTypeArg::Float32,
            DTypeArg::Auto if checkpoint.is_float16() => DTypeArg::Float16,
            dtype => dtype,
        };
        let (name, compute, kv) = match dtype {
            DTypeArg::Auto | DTypeArg::Bfloat16 => ("bfloat16", Element::BF16, KvType::BF16),
            DTypeArg::Float16 => ("float16", Element::F16, KvType::F16),
            DTypeArg::Float32 => ("float32", Element::F32, KvType::F32),
        };
        let kv = kv_type(config.kv_cache_dtype, kv);
        if matches!((compute, kv), (Element::BF16, KvType::F16) | (Element::F16, KvType::BF16)) {
            return Err(LoadError::KvCacheDType { kv: kv.name(), compute: name });
        }
        Ok(Self { name, compute, kv })
    }

    /// Width of activations.
    pub(super) fn element_bytes(&self) -> usize {
        match self.compute {
            Element::F32 => 4,
            Element::BF16 | Element::F16 => 2,
        }
    }

    /// Width of what the cache stores.
    pub(super) fn kv_element_bytes(&self) -> usize {
        match self.kv {
            KvType::F32 => 4,
            KvType::BF16 | KvType::F16 => 2,
            KvType::Fp8 => 1,
        }
    }
}
