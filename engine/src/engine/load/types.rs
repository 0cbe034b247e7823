//! What `--dtype` and `--kv-cache-dtype` come to.

use crate::{
    backend::DType,
    backend::cpu::{ComputeType, KvType},
    cli::{DTypeArg, KvCacheDTypeArg},
    config::EngineConfig,
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
