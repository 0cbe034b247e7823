//! Each check runs a kernel on random inputs and compares with the CPU backend; what differs, or what the emulator objects to, is the
//! error. Checks take the kernels to check, so that mutated ones can be put to them too.

pub mod adjust;
pub mod attention;
pub mod elements;
pub mod experts;
pub mod linear;
pub mod pointwise;
pub mod sampling;
pub mod weights;

use tokenflow_engine::backend::cpu::{ComputeType, CpuBackend, CpuConfig, KvType};

use crate::emulator::{Library, WARPS, library};

pub type Outcome = Result<(), String>;

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

/// Whether every element is within `tolerance` of what was expected, relative to 1 or to its size.
pub fn compare(what: &str, found: &[f32], expected: &[f32], tolerance: f32) -> Outcome {
    if found.len() != expected.len() {
        return Err(format!("{what}: {} elements, not {}", found.len(), expected.len()));
    }
    // NaN is near nothing.
    let near = |f: &f32, e: &f32| (f - e).abs() <= tolerance * e.abs().max(1.0);
    match found.iter().zip(expected).position(|(f, e)| !near(f, e)) {
        Some(i) => Err(format!("{what}: element {i} of {} is {}, not {}", found.len(), found[i], expected[i])),
        None => Ok(()),
    }
}

/// As [`compare`], relative to the largest of what was expected: for sums whose terms were rounded.
pub fn compare_scaled(what: &str, found: &[f32], expected: &[f32], tolerance: f32) -> Outcome {
    let largest = expected.iter().fold(1f32, |largest, v| largest.max(v.abs()));
    let scaled = |values: &[f32]| values.iter().map(|v| v / largest).collect::<Vec<_>>();
    compare(what, &scaled(found), &scaled(expected), tolerance)
}

/// With warps of every width.
pub fn on_all_warps(check: impl Fn(&Library) -> Outcome) {
    for warp in WARPS {
        if let Err(error) = check(library(warp)) {
            panic!("warps of {warp}: {error}");
        }
    }
}
