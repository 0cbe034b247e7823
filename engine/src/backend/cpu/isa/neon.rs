//! NEON: a vector is four registers.

use std::{arch::aarch64::*, array::from_fn};

use super::{Kernel, Simd};

/// Proof that the instructions exist.
#[derive(Clone, Copy)]
pub(in super::super) struct Neon(());

impl Neon {
    pub(super) fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }

    pub(super) fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon")]
        fn compiled<K: Kernel>(simd: Neon, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: `self` exists only where it was detected.
        unsafe { compiled(self, kernel) }
    }
}

/// Calls an intrinsic for all quarters, numbered `$i`.
macro_rules! quarters {
    ($i:ident => $call:expr) => {
        // SAFETY: `self` proves that the instruction exists; pointers are the caller's promise.
        from_fn(
            #[inline(always)]
            |$i| unsafe { $call },
        )
    };
}

impl Simd for Neon {
    type F = [float32x4_t; 4];
    type I = [uint32x4_t; 4];

    const TILE_ROWS: [usize; 2] = [5, 2];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        quarters!(_i => vdupq_n_f32(x))
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::F {
        quarters!(i => vld1q_f32(p.add(4 * i)))
    }

    #[inline(always)]
    unsafe fn store(self, x: Self::F, p: *mut f32) {
        let _: [(); 4] = quarters!(i => vst1q_f32(p.add(4 * i), x[i]));
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(i => vaddq_f32(a[i], b[i]))
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(i => vsubq_f32(a[i], b[i]))
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(i => vmulq_f32(a[i], b[i]))
    }

    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(i => vdivq_f32(a[i], b[i]))
    }

    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(i => vmaxq_f32(a[i], b[i]))
    }

    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        quarters!(i => vfmaq_f32(c[i], a[i], b[i]))
    }

    #[inline(always)]
    fn select_lt(self, a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F {
        quarters!(i => vbslq_f32(vcltq_f32(a[i], b[i]), x[i], y[i]))
    }

    #[inline(always)]
    unsafe fn load_bits(self, p: *const u32) -> Self::I {
        quarters!(i => vld1q_u32(p.add(4 * i)))
    }

    #[inline(always)]
    fn float(self, x: Self::I) -> Self::F {
        quarters!(i => vreinterpretq_f32_u32(x[i]))
    }

    #[inline(always)]
    fn bits(self, x: Self::F) -> Self::I {
        quarters!(i => vreinterpretq_u32_f32(x[i]))
    }

    #[inline(always)]
    fn and(self, x: Self::I, mask: u32) -> Self::I {
        quarters!(i => vandq_u32(x[i], vdupq_n_u32(mask)))
    }

    #[inline(always)]
    fn or(self, a: Self::I, b: Self::I) -> Self::I {
        quarters!(i => vorrq_u32(a[i], b[i]))
    }

    #[inline(always)]
    fn shl<const N: u32>(self, x: Self::I) -> Self::I {
        quarters!(i => vshlq_u32(x[i], vdupq_n_s32(N.cast_signed())))
    }

    #[inline(always)]
    fn shr<const N: u32>(self, x: Self::I) -> Self::I {
        quarters!(i => vshlq_u32(x[i], vdupq_n_s32(-N.cast_signed())))
    }

    #[inline(always)]
    fn shr_by(self, x: Self::I, count: u32) -> Self::I {
        quarters!(i => vshlq_u32(x[i], vdupq_n_s32(-count.cast_signed())))
    }

    #[inline(always)]
    unsafe fn store_bits(self, x: Self::I, p: *mut u32) {
        let _: [(); 4] = quarters!(i => vst1q_u32(p.add(4 * i), x[i]));
    }

    #[inline(always)]
    unsafe fn widen_u8(self, p: *const u8) -> Self::I {
        // SAFETY: as above.
        unsafe {
            let bytes = vld1q_u8(p);
            let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_u8(vget_high_u8(bytes)));
            [vmovl_u16(vget_low_u16(low)), vmovl_u16(vget_high_u16(low)), vmovl_u16(vget_low_u16(high)), vmovl_u16(vget_high_u16(high))]
        }
    }

    #[inline(always)]
    unsafe fn widen_i8(self, p: *const u8) -> Self::I {
        // SAFETY: as above.
        unsafe {
            let bytes = vld1q_s8(p.cast());
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_s8(vget_high_s8(bytes)));
            let wide = [vget_low_s16(low), vget_high_s16(low), vget_low_s16(high), vget_high_s16(high)];
            quarters!(i => vreinterpretq_u32_s32(vmovl_s16(wide[i])))
        }
    }

    #[inline(always)]
    unsafe fn widen_u16(self, p: *const u16) -> Self::I {
        quarters!(i => vmovl_u16(vld1_u16(p.add(4 * i))))
    }

    #[inline(always)]
    fn to_float(self, x: Self::I) -> Self::F {
        quarters!(i => vcvtq_f32_s32(vreinterpretq_s32_u32(x[i])))
    }
}
