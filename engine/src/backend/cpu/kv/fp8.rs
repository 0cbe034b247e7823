//! FP8 keys and values: rounded to e4m3 when written, expanded to bf16, exactly, when read.

use super::super::isa::{
    LANES, Simd,
    math::{E4M3_UNIT, e4m3_to_f32_small},
};

/// What e4m3 reaches.
const MAX: f32 = 448.0;
/// The least value with a full mantissa.
const MIN_NORMAL: f32 = 1.0 / 64.0;

/// Rounds to the nearest e4m3, ties to even; values out of range become the greatest, NaN stays NaN.
#[inline(always)]
pub(super) fn e4m3_bits(x: f32) -> u8 {
    // 2^23: adding a value in units of its last place leaves it rounded in the mantissa.
    const MAGIC: f32 = 8_388_608.0;
    let sign = (x.to_bits() >> 24) as u8 & 0x80;
    let size = if x.abs() > MAX { MAX } else { x.abs() };
    let bits = size.to_bits();
    let normal = (bits.wrapping_add(0x7_ffff + (bits >> 20 & 1)) >> 20).wrapping_sub(120 << 3) as u8;
    let subnormal = (size * 512.0 + MAGIC).to_bits() as u8;
    let code = if size < MIN_NORMAL { subnormal } else { normal };
    sign | if x.is_nan() { 0x7f } else { code }
}

/// Expands `vectors` times 32 codes at `from` to bf16 at `to`.
///
/// # Safety
/// Both must have room for them.
#[inline(always)]
pub(super) unsafe fn expand<S: Simd>(s: S, from: *const u8, to: *mut u8, vectors: usize) {
    let unit = s.splat(E4M3_UNIT);
    for i in 0..vectors {
        // SAFETY: promised by the caller.
        unsafe {
            let pairs = s.widen_u16(from.add(i * 2 * LANES).cast());
            let even = s.mul(e4m3_to_f32_small(s, s.and(pairs, 0xff)), unit);
            let odd = s.mul(e4m3_to_f32_small(s, s.shr::<8>(pairs)), unit);
            // Four bits of mantissa lose nothing here.
            let both = s.or(s.shr::<16>(s.bits(even)), s.and(s.bits(odd), 0xffff_0000));
            s.store_bits(both, to.add(i * 4 * LANES).cast());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::{
            isa::{Kernel, Level, available},
            tests::formats::e4m3,
        },
        *,
    };

    #[test]
    fn the_nearest_code_is_taken() {
        let codes: Vec<u8> = (0..0x7f).collect();
        let check = |x: f32| {
            let size = f64::from(x.abs()).min(448.0);
            let distance = |&c: &u8| (e4m3(c) - size).abs();
            let best = codes.iter().map(distance).fold(f64::INFINITY, f64::min);
            // Of two equally near, the even one.
            let nearest = codes.iter().copied().filter(|c| distance(c) == best).min_by_key(|c| c & 1);
            assert_eq!(Some(e4m3_bits(x) & 0x7f), nearest, "{x}");
            assert_eq!(e4m3_bits(x) >> 7 == 1, x.is_sign_negative(), "{x}");
        };
        for pair in codes.windows(2) {
            let (low, high) = (e4m3(pair[0]) as f32, e4m3(pair[1]) as f32);
            for x in [low, high, (low + high) / 2.0, ((low + high) / 2.0).next_down(), ((low + high) / 2.0).next_up()] {
                check(x);
                check(-x);
            }
        }
        for x in [1e-30, 448.1, 464.0, 1e9, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::MIN_POSITIVE] {
            check(x);
        }
        assert_eq!(e4m3_bits(f32::NAN) & 0x7f, 0x7f);
    }

    struct Expand<'a>(&'a [u8]);

    impl Kernel for Expand<'_> {
        type Output = Vec<u16>;

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Vec<u16> {
            let mut out = vec![0u16; self.0.len()];
            // SAFETY: both have the same number of elements.
            unsafe { expand(s, self.0.as_ptr(), out.as_mut_ptr().cast(), self.0.len() / (2 * LANES)) };
            out
        }
    }

    #[test]
    fn all_codes_are_expanded_exactly() {
        let codes: Vec<u8> = (0..=255).map(|c| if c & 0x7f == 0x7f { 0 } else { c }).collect();
        for isa in available() {
            for (code, found) in codes.iter().zip(Level::detect(Some(isa)).expect("available").run(Expand(&codes))) {
                assert_eq!(half::bf16::from_bits(found).to_f64(), e4m3(*code), "{isa:?} {code:#x}");
            }
        }
    }
}
