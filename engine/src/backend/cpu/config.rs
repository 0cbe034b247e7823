//! What an operator may choose about the CPU backend.
//! Everything has a default that suits the machine it runs on.

use crate::backend::DType;

/// The type that products of bf16 weights are computed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComputeType {
    /// Weights are widened exactly, products and sums are f32.
    F32,
    /// Activations are rounded to bf16 where the machine multiplies bf16 natively, sums are f32; elsewhere the same as `F32`.
    BF16,
}

/// The type that keys and values are stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvType {
    F32,
    BF16,
    /// Values beyond the type's range become the greatest it has.
    F16,
    /// e4m3 with scale 1, as vLLM's without calibration; values beyond 448 become 448.
    Fp8,
}

impl KvType {
    /// vLLM's name of the type.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::BF16 => "bfloat16",
            Self::F16 => "float16",
            Self::Fp8 => "fp8",
        }
    }
}

/// Instruction sets that kernels are written for, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512 F, BW, DQ, VL and BF16.
    Avx512Bf16,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX2 and FMA.
    Avx2,
    Neon,
    Portable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuConfig {
    /// Threads that share each operation, the caller included; 0 takes all available cores.
    pub threads: usize,
    pub compute: ComputeType,
    pub kv_dtype: KvType,
    /// What unencoded weights are converted to; `None` keeps each as it is in the checkpoint.
    pub weights: Option<DType>,
    /// `None` takes the best that the machine has.
    pub isa: Option<Isa>,
    /// So many bytes of the KV cache, its first blocks, have their memory from the start; others get it when they are first used.
    pub populated_kv_bytes: usize,
}

impl Default for CpuConfig {
    fn default() -> Self {
        Self { threads: 0, compute: ComputeType::BF16, kv_dtype: KvType::BF16, weights: None, isa: None, populated_kv_bytes: 0 }
    }
}
