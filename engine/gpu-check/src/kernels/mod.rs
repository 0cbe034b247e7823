//! Each check runs a kernel, or a few, on random inputs and compares with the CPU backend; what differs, or what the device objects to,
//! is the error. The same checks run on a card and on an emulated one.

pub mod adjust;
pub mod attention;
pub mod elements;
pub mod experts;
pub mod linear;
pub mod pointwise;
pub mod sampling;
pub mod weights;

use tokenflow_engine::backend::cpu::{ComputeType, CpuBackend, CpuConfig, KvType};

use crate::card::Card;

/// A kernel, or a few, on random inputs.
pub struct Check {
    /// What of the kernels, and of which types.
    pub name: &'static str,
    pub run: fn(&Card) -> anyhow::Result<()>,
}

/// Every check, cheap ones first.
pub fn all() -> impl Iterator<Item = &'static Check> {
    [pointwise::CHECKS, adjust::CHECKS, sampling::CHECKS, linear::CHECKS, experts::CHECKS, attention::CHECKS].into_iter().flatten()
}

/// Repeatable random numbers (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    pub fn within(&mut self, range: std::ops::RangeInclusive<usize>) -> usize {
        range.start() + self.below(range.end() - range.start() + 1)
    }

    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// In -1..1.
    pub fn value(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn values(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.value()).collect()
    }
}

/// What results are compared with: sums and products in f32.
pub fn reference(kv_dtype: KvType) -> CpuBackend {
    CpuBackend::new(CpuConfig { threads: 1, compute: ComputeType::F32, kv_dtype, ..CpuConfig::default() }).expect("available")
}
