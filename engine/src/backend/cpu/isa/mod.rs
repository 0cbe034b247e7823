//! Vectors of sixteen f32 lanes on whatever the processor has, chosen when the engine starts.
//!
//! A kernel is written once, over [`Simd`]; [`Level::run`] compiles it for each instruction set and enters the one
//! that was detected. A value of a `Simd` type is the proof that its instructions exist.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(super) mod math;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

#[cfg(target_arch = "x86_64")]
use self::{avx2::Avx2, avx512::Avx512};
#[cfg(target_arch = "aarch64")]
use neon::Neon;
use portable::Portable;

use super::{config::Isa, product::bf16_bits};
use crate::backend::BackendError;

/// Lanes of a vector on every instruction set, so that all of them sum in the same order.
pub(super) const LANES: usize = 16;

/// Sixteen lanes of f32 (`F`) or u32 (`I`).
///
/// Methods are `#[inline(always)]` because they only become single instructions inside [`Level::run`].
pub(super) trait Simd: Copy + Send + Sync + 'static {
    type F: Copy;
    type I: Copy;

    /// Rows that fit the registers in a product tile of one vector of columns, and of two.
    const TILE_ROWS: [usize; 2];
    /// Whether [`Simd::dot_bf16`] is one instruction.
    const DOT_BF16: bool = false;

    fn splat(self, x: f32) -> Self::F;
    /// # Safety
    /// Sixteen values must be readable at `p`; no alignment is needed.
    unsafe fn load(self, p: *const f32) -> Self::F;
    /// # Safety
    /// Sixteen values must be writable at `p`; no alignment is needed.
    unsafe fn store(self, x: Self::F, p: *mut f32);
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once where the processor can.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// Lane by lane: `a < b ? x : y`.
    fn select_lt(self, a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F;

    /// # Safety
    /// As [`Simd::load`].
    unsafe fn load_bits(self, p: *const u32) -> Self::I;
    fn float(self, x: Self::I) -> Self::F;
    fn bits(self, x: Self::F) -> Self::I;
    fn and(self, x: Self::I, mask: u32) -> Self::I;
    fn or(self, a: Self::I, b: Self::I) -> Self::I;
    fn shl<const N: u32>(self, x: Self::I) -> Self::I;
    fn shr<const N: u32>(self, x: Self::I) -> Self::I;
    /// As [`Simd::shr`] with a count, below 32, that is known at run time only.
    fn shr_by(self, x: Self::I, count: u32) -> Self::I;
    /// # Safety
    /// As [`Simd::store`].
    unsafe fn store_bits(self, x: Self::I, p: *mut u32);
    /// Sixteen bytes, each in a lane of its own.
    ///
    /// # Safety
    /// Sixteen bytes must be readable at `p`; no alignment is needed.
    unsafe fn widen_u8(self, p: *const u8) -> Self::I;
    /// As [`Simd::widen_u8`], the sign extended.
    ///
    /// # Safety
    /// As [`Simd::widen_u8`].
    unsafe fn widen_i8(self, p: *const u8) -> Self::I;
    /// # Safety
    /// Sixteen values must be readable at `p`; no alignment is needed.
    unsafe fn widen_u16(self, p: *const u16) -> Self::I;
    /// The signed integers as f32.
    fn to_float(self, x: Self::I) -> Self::F;

    /// Lane by lane: both values rounded to bf16, ties to even, the even one in the low half.
    #[inline(always)]
    fn bf16_pairs(self, even: Self::F, odd: Self::F) -> Self::I {
        bf16_pairs_by_lane(self, even, odd)
    }

    /// Lane by lane: `acc` plus the products of both bf16 halves of `a` and the lane of `b`. See [`Level::has_dot_bf16`].
    #[inline(always)]
    fn dot_bf16(self, acc: Self::F, a: u32, b: Self::I) -> Self::F {
        dot_bf16_as_f32(self, acc, a, b)
    }

    /// Asks for the cache line at `p`, which need not be readable.
    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        let _ = p;
    }

    #[inline(always)]
    fn to_array(self, x: Self::F) -> [f32; LANES] {
        let mut lanes = [0.0; LANES];
        // SAFETY: the array holds sixteen values.
        unsafe { self.store(x, lanes.as_mut_ptr()) };
        lanes
    }

    /// Sum of the lanes, always in the same order.
    #[inline(always)]
    fn sum(self, x: Self::F) -> f32 {
        let mut lanes = self.to_array(x);
        for width in [8, 4, 2, 1] {
            for i in 0..width {
                lanes[i] += lanes[i + width];
            }
        }
        lanes[0]
    }

    #[inline(always)]
    fn max_lane(self, x: Self::F) -> f32 {
        let mut lanes = self.to_array(x);
        for width in [8, 4, 2, 1] {
            for i in 0..width {
                lanes[i] = if lanes[i] < lanes[i + width] { lanes[i + width] } else { lanes[i] };
            }
        }
        lanes[0]
    }
}

/// [`Simd::bf16_pairs`] where it is no instruction.
#[inline(always)]
fn bf16_pairs_by_lane<S: Simd>(s: S, even: S::F, odd: S::F) -> S::I {
    let (even, odd) = (s.to_array(even), s.to_array(odd));
    let mut pairs = [0; LANES];
    for i in 0..LANES {
        pairs[i] = u32::from(bf16_bits(even[i])) | u32::from(bf16_bits(odd[i])) << 16;
    }
    // SAFETY: sixteen values.
    unsafe { s.load_bits(pairs.as_ptr()) }
}

/// [`Simd::dot_bf16`] where it is no instruction.
#[inline(always)]
fn dot_bf16_as_f32<S: Simd>(s: S, acc: S::F, a: u32, b: S::I) -> S::F {
    let acc = s.fma(s.splat(f32::from_bits(a & 0xffff_0000)), s.float(s.and(b, 0xffff_0000)), acc);
    s.fma(s.splat(f32::from_bits(a << 16)), s.float(s.shl::<16>(b)), acc)
}

/// A computation over one instruction set. `run` must be `#[inline(always)]`, and so must be all that it calls with vectors.
pub(super) trait Kernel {
    type Output;
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// The detected instruction set.
#[derive(Clone, Copy)]
pub(super) enum Level {
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16(Avx512<true>),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512<false>),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
    Portable(Portable),
}

const BEST_FIRST: [Isa; 5] = [Isa::Avx512Bf16, Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Portable];

impl Level {
    /// The instruction set asked for, or else the best there is.
    pub(super) fn detect(isa: Option<Isa>) -> Result<Self, BackendError> {
        match isa {
            Some(isa) => Self::of(isa).ok_or_else(|| BackendError::Device(format!("this processor does not have {isa:?}"))),
            None => Ok(BEST_FIRST.into_iter().find_map(Self::of).unwrap_or(Self::Portable(Portable))),
        }
    }

    fn of(isa: Isa) -> Option<Self> {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => Avx512::<true>::detect().map(Self::Avx512Bf16),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Avx512::<false>::detect().map(Self::Avx512),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Avx2::detect().map(Self::Avx2),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Neon::detect().map(Self::Neon),
            Isa::Portable => Some(Self::Portable(Portable)),
            #[allow(unreachable_patterns)]
            _ => None,
        }
    }

    pub(super) fn isa(self) -> Isa {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16(_) => Isa::Avx512Bf16,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => Isa::Avx512,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => Isa::Avx2,
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => Isa::Neon,
            Self::Portable(_) => Isa::Portable,
        }
    }

    /// Whether [`Simd::dot_bf16`] is one instruction.
    pub(super) fn has_dot_bf16(self) -> bool {
        self.isa() == Isa::Avx512Bf16
    }

    /// Runs `kernel` as compiled for this instruction set.
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16(simd) => simd.enter(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => simd.enter(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => simd.enter(kernel),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(simd) => simd.enter(kernel),
            Self::Portable(simd) => kernel.run(simd),
        }
    }
}

/// All instruction sets of this machine, for tests.
#[cfg(test)]
pub(super) fn available() -> Vec<Isa> {
    BEST_FIRST.into_iter().filter(|isa| Level::of(*isa).is_some()).collect()
}
