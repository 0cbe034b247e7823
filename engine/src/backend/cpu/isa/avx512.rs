//! AVX-512 F, BW, DQ and VL, with or without BF16: a vector is one register.

use std::{arch::x86_64::*, mem::transmute};

use super::{Kernel, Simd, bf16_pairs_by_lane, dot_bf16_as_f32};

/// Proof that the instructions exist; `BF16` adds `vdpbf16ps`.
#[derive(Clone, Copy)]
pub(in super::super) struct Avx512<const BF16: bool>(());

impl<const BF16: bool> Avx512<BF16> {
    pub(super) fn detect() -> Option<Self> {
        let base = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        (base && (!BF16 || is_x86_feature_detected!("avx512bf16"))).then_some(Self(()))
    }
}

impl Avx512<true> {
    pub(super) fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,bmi2")]
        fn compiled<K: Kernel>(simd: Avx512<true>, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: `self` exists only where these were detected.
        unsafe { compiled(self, kernel) }
    }
}

impl Avx512<false> {
    pub(super) fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi2")]
        fn compiled<K: Kernel>(simd: Avx512<false>, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: `self` exists only where these were detected.
        unsafe { compiled(self, kernel) }
    }
}

/// Calls an intrinsic.
macro_rules! op {
    ($call:expr) => {
        // SAFETY: `self` proves that the instruction exists; pointers are the caller's promise.
        unsafe { $call }
    };
}

impl<const BF16: bool> Simd for Avx512<BF16> {
    type F = __m512;
    type I = __m512i;

    const TILE_ROWS: [usize; 2] = [12, 12];
    const DOT_BF16: bool = BF16;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        op!(_mm512_set1_ps(x))
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m512 {
        op!(_mm512_loadu_ps(p))
    }

    #[inline(always)]
    unsafe fn store(self, x: __m512, p: *mut f32) {
        op!(_mm512_storeu_ps(p, x))
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_div_ps(a, b))
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_max_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        op!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn select_lt(self, a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 {
        op!(_mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), y, x))
    }

    #[inline(always)]
    unsafe fn load_bits(self, p: *const u32) -> __m512i {
        op!(_mm512_loadu_si512(p.cast()))
    }

    #[inline(always)]
    fn float(self, x: __m512i) -> __m512 {
        op!(_mm512_castsi512_ps(x))
    }

    #[inline(always)]
    fn bits(self, x: __m512) -> __m512i {
        op!(_mm512_castps_si512(x))
    }

    #[inline(always)]
    fn and(self, x: __m512i, mask: u32) -> __m512i {
        op!(_mm512_and_si512(x, _mm512_set1_epi32(mask.cast_signed())))
    }

    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        op!(_mm512_or_si512(a, b))
    }

    #[inline(always)]
    fn shl<const N: u32>(self, x: __m512i) -> __m512i {
        op!(_mm512_slli_epi32::<N>(x))
    }

    #[inline(always)]
    fn shr<const N: u32>(self, x: __m512i) -> __m512i {
        op!(_mm512_srli_epi32::<N>(x))
    }

    #[inline(always)]
    fn shr_by(self, x: __m512i, count: u32) -> __m512i {
        op!(_mm512_srl_epi32(x, _mm_cvtsi32_si128(count.cast_signed())))
    }

    #[inline(always)]
    unsafe fn store_bits(self, x: __m512i, p: *mut u32) {
        op!(_mm512_storeu_si512(p.cast(), x))
    }

    #[inline(always)]
    unsafe fn widen_u8(self, p: *const u8) -> __m512i {
        op!(_mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast())))
    }

    #[inline(always)]
    unsafe fn widen_i8(self, p: *const u8) -> __m512i {
        op!(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast())))
    }

    #[inline(always)]
    unsafe fn widen_u16(self, p: *const u16) -> __m512i {
        op!(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast())))
    }

    #[inline(always)]
    fn to_float(self, x: __m512i) -> __m512 {
        op!(_mm512_cvtepi32_ps(x))
    }

    #[inline(always)]
    fn bf16_pairs(self, even: __m512, odd: __m512) -> __m512i {
        /// Halves of the instruction's result, the even values and then the odd ones, as pairs.
        static INTERLEAVE: [u16; 32] = {
            let mut order = [0; 32];
            let mut i = 0;
            while i < 32 {
                order[i] = (i / 2 + i % 2 * 16) as u16;
                i += 1;
            }
            order
        };
        if !BF16 {
            return bf16_pairs_by_lane(self, even, odd);
        }
        op!({
            let halves = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(odd, even));
            _mm512_permutexvar_epi16(_mm512_loadu_si512(INTERLEAVE.as_ptr().cast()), halves)
        })
    }

    #[inline(always)]
    fn dot_bf16(self, acc: __m512, a: u32, b: __m512i) -> __m512 {
        if !BF16 {
            return dot_bf16_as_f32(self, acc, a, b);
        }
        op!(_mm512_dpbf16_ps(acc, transmute::<__m512i, __m512bh>(_mm512_set1_epi32(a.cast_signed())), transmute::<__m512i, __m512bh>(b)))
    }

    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        op!(_mm_prefetch::<_MM_HINT_T0>(p.cast()))
    }
}
