//! AVX2 and FMA: a vector is two registers.

use std::arch::x86_64::*;

use super::{Kernel, Simd};

/// Proof that the instructions exist.
#[derive(Clone, Copy)]
pub(in super::super) struct Avx2(());

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }

    pub(super) fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma")]
        fn compiled<K: Kernel>(simd: Avx2, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: `self` exists only where these were detected.
        unsafe { compiled(self, kernel) }
    }
}

/// Calls an intrinsic for both halves, numbered `$i`.
macro_rules! both {
    ($i:ident => $call:expr) => {
        // SAFETY: `self` proves that the instruction exists; pointers are the caller's promise.
        unsafe {
            [
                {
                    const $i: usize = 0;
                    $call
                },
                {
                    const $i: usize = 1;
                    $call
                },
            ]
        }
    };
}

impl Simd for Avx2 {
    type F = [__m256; 2];
    type I = [__m256i; 2];

    const TILE_ROWS: [usize; 2] = [6, 2];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        both!(I => { let _ = I; _mm256_set1_ps(x) })
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::F {
        both!(I => _mm256_loadu_ps(p.add(8 * I)))
    }

    #[inline(always)]
    unsafe fn store(self, x: Self::F, p: *mut f32) {
        both!(I => _mm256_storeu_ps(p.add(8 * I), x[I]));
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        both!(I => _mm256_add_ps(a[I], b[I]))
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        both!(I => _mm256_sub_ps(a[I], b[I]))
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        both!(I => _mm256_mul_ps(a[I], b[I]))
    }

    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        both!(I => _mm256_div_ps(a[I], b[I]))
    }

    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        both!(I => _mm256_max_ps(a[I], b[I]))
    }

    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        both!(I => _mm256_fmadd_ps(a[I], b[I], c[I]))
    }

    #[inline(always)]
    fn select_lt(self, a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F {
        both!(I => _mm256_blendv_ps(y[I], x[I], _mm256_cmp_ps::<_CMP_LT_OQ>(a[I], b[I])))
    }

    #[inline(always)]
    unsafe fn load_bits(self, p: *const u32) -> Self::I {
        both!(I => _mm256_loadu_si256(p.add(8 * I).cast()))
    }

    #[inline(always)]
    fn float(self, x: Self::I) -> Self::F {
        both!(I => _mm256_castsi256_ps(x[I]))
    }

    #[inline(always)]
    fn bits(self, x: Self::F) -> Self::I {
        both!(I => _mm256_castps_si256(x[I]))
    }

    #[inline(always)]
    fn and(self, x: Self::I, mask: u32) -> Self::I {
        both!(I => _mm256_and_si256(x[I], _mm256_set1_epi32(mask.cast_signed())))
    }

    #[inline(always)]
    fn or(self, a: Self::I, b: Self::I) -> Self::I {
        both!(I => _mm256_or_si256(a[I], b[I]))
    }

    #[inline(always)]
    fn shl<const N: u32>(self, x: Self::I) -> Self::I {
        both!(I => _mm256_sll_epi32(x[I], _mm_cvtsi32_si128(N.cast_signed())))
    }

    #[inline(always)]
    fn shr<const N: u32>(self, x: Self::I) -> Self::I {
        both!(I => _mm256_srl_epi32(x[I], _mm_cvtsi32_si128(N.cast_signed())))
    }

    #[inline(always)]
    fn shr_by(self, x: Self::I, count: u32) -> Self::I {
        both!(I => _mm256_srl_epi32(x[I], _mm_cvtsi32_si128(count.cast_signed())))
    }

    #[inline(always)]
    unsafe fn store_bits(self, x: Self::I, p: *mut u32) {
        both!(I => _mm256_storeu_si256(p.add(8 * I).cast(), x[I]));
    }

    #[inline(always)]
    unsafe fn widen_u8(self, p: *const u8) -> Self::I {
        both!(I => _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.add(8 * I).cast())))
    }

    #[inline(always)]
    unsafe fn widen_i8(self, p: *const u8) -> Self::I {
        both!(I => _mm256_cvtepi8_epi32(_mm_loadl_epi64(p.add(8 * I).cast())))
    }

    #[inline(always)]
    unsafe fn widen_u16(self, p: *const u16) -> Self::I {
        both!(I => _mm256_cvtepu16_epi32(_mm_loadu_si128(p.add(8 * I).cast())))
    }

    #[inline(always)]
    fn to_float(self, x: Self::I) -> Self::F {
        both!(I => _mm256_cvtepi32_ps(x[I]))
    }

    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        // SAFETY: a hint; it never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
}
