//! Functions that have no instruction of their own.

use std::f32::consts::FRAC_2_SQRT_PI;

use super::Simd;

/// `e^x` for finite `x` or minus infinity, within two units in the last place; exactly 0 below -87.3.
///
/// Cephes' expf: `x = n ln 2 + r`, a polynomial of degree 5 in `r`, and `2^n` put together from its exponent bits.
#[inline(always)]
pub(in super::super) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    const LOWEST: f32 = -87.3;
    const HIGHEST: f32 = 88.0;
    // 1.5 * 2^23: adding it leaves the rounded integer in the low mantissa bits.
    const MAGIC: f32 = 12_582_912.0;
    let lowest = s.splat(LOWEST);
    let highest = s.splat(HIGHEST);
    let clamped = s.select_lt(x, lowest, lowest, s.select_lt(highest, x, highest, x));
    let shifted = s.fma(clamped, s.splat(std::f32::consts::LOG2_E), s.splat(MAGIC));
    let n = s.sub(shifted, s.splat(MAGIC));
    let r = s.fma(n, s.splat(-0.693_359_4), clamped);
    let r = s.fma(n, s.splat(2.121_944_4e-4), r);
    let mut p = s.splat(1.987_569_1e-4);
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = s.fma(p, r, s.splat(c));
    }
    let p = s.add(s.fma(p, s.mul(r, r), r), s.splat(1.0));
    let power = s.float(s.shl::<23>(s.bits(s.add(n, s.splat(MAGIC + 127.0)))));
    s.select_lt(x, lowest, s.splat(0.0), s.mul(p, power))
}

/// `c[0] + c[1] x + ...`
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::F, coefficients: [f32; N]) -> S::F {
    let mut sum = s.splat(coefficients[N - 1]);
    let mut i = N - 1;
    while i > 0 {
        i -= 1;
        sum = s.fma(sum, x, s.splat(coefficients[i]));
    }
    sum
}

/// `|x|` and the sign bit of `x`.
#[inline(always)]
fn split_sign<S: Simd>(s: S, x: S::F) -> (S::F, S::I) {
    (s.float(s.and(s.bits(x), 0x7fff_ffff)), s.and(s.bits(x), 0x8000_0000))
}

/// `tanh(x)` for finite `x`, within a few units in the last place: a polynomial below 0.625, `1 - 2 / (e^2x + 1)` above.
#[inline(always)]
pub(in super::super) fn tanh<S: Simd>(s: S, x: S::F) -> S::F {
    let (size, sign) = split_sign(s, x);
    let square = s.mul(x, x);
    let small = polynomial(s, square, [-0.333_332_84, 0.133_314_91, -0.053_743_5, 0.020_650_592, -0.005_717_049]);
    let small = s.fma(s.mul(x, square), small, x);
    let grown = s.add(exp(s, s.add(size, size)), s.splat(1.0));
    let large = s.sub(s.splat(1.0), s.div(s.splat(2.0), grown));
    s.select_lt(size, s.splat(0.625), small, s.float(s.or(s.bits(large), sign)))
}

/// `erf(x)` for finite `x`, within 2e-7: a polynomial below 1, `1 - e^(-x p(x))` above.
#[inline(always)]
pub(in super::super) fn erf<S: Simd>(s: S, x: S::F) -> S::F {
    let (size, sign) = split_sign(s, x);
    let below_one = [FRAC_2_SQRT_PI, -0.376_126_26, 0.112_835_854, -0.026_853_815, 0.005_188_334, -8.010_242e-4, 7.854_009e-5];
    let above_one = [1.128_691_6, 0.634_979_96, 0.106_514_93, -0.023_997_352, 0.003_751_890_5, -3.493_114_2e-4, 1.384_276_9e-5];
    let small = s.mul(x, polynomial(s, s.mul(x, x), below_one));
    // From 4 on the rest is less than half a unit in the last place.
    let bounded = s.select_lt(size, s.splat(4.0), size, s.splat(4.0));
    let exponent = s.mul(bounded, polynomial(s, bounded, above_one));
    let large = s.sub(s.splat(1.0), exp(s, s.sub(s.splat(0.0), exponent)));
    s.select_lt(size, s.splat(1.0), small, s.float(s.or(s.bits(large), sign)))
}

/// Finite f16 bits as f32, exactly: exponent and mantissa, moved to an f32's place, are the value times 2^-112, subnormals included.
#[inline(always)]
pub(in super::super) fn f16_to_f32<S: Simd>(s: S, bits: S::I) -> S::F {
    let moved = s.or(s.shl::<16>(s.and(bits, 0x8000)), s.shl::<13>(s.and(bits, 0x7fff)));
    s.mul(s.float(moved), s.splat(f32::from_bits((127 + 112) << 23)))
}

/// What [`e4m3_to_f32_small`]'s results are to be multiplied by: 2^120.
pub(in super::super) const E4M3_UNIT: f32 = f32::from_bits((127 + 120) << 23);

/// e4m3 bits as f32 times 2^-120, exactly, as [`f16_to_f32`]; not for NaN.
#[inline(always)]
pub(in super::super) fn e4m3_to_f32_small<S: Simd>(s: S, bits: S::I) -> S::F {
    s.float(s.or(s.shl::<24>(s.and(bits, 0x80)), s.shl::<20>(s.and(bits, 0x7f))))
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::reference;
    use super::super::{Kernel, LANES, Level, available};
    use super::*;

    struct TanhErf([f32; LANES]);

    impl Kernel for TanhErf {
        type Output = [[f32; LANES]; 2];

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> [[f32; LANES]; 2] {
            // SAFETY: the array holds sixteen values.
            let x = unsafe { s.load(self.0.as_ptr()) };
            [s.to_array(tanh(s, x)), s.to_array(erf(s, x))]
        }
    }

    #[test]
    fn tanh_and_erf_are_accurate_everywhere() {
        for isa in available() {
            let level = Level::detect(Some(isa)).expect("available");
            for start in -1000..1000 {
                let x: [f32; LANES] = std::array::from_fn(|i| start as f32 * 0.01 + i as f32 * 0.000_6);
                let [tanhs, erfs] = level.run(TanhErf(x));
                for ((x, tanh), erf) in x.into_iter().zip(tanhs).zip(erfs) {
                    let expected = f64::from(x).tanh();
                    assert!((f64::from(tanh) - expected).abs() <= expected.abs() * 4e-7, "{isa:?}: tanh({x}) = {tanh}, not {expected}");
                    let expected = reference::erf(f64::from(x));
                    assert!((f64::from(erf) - expected).abs() <= 2e-7, "{isa:?}: erf({x}) = {erf}, not {expected}");
                }
            }
            let [tanhs, erfs] = level.run(TanhErf([1e30; LANES]));
            assert_eq!((tanhs[0], erfs[0]), (1.0, 1.0));
            let [tanhs, erfs] = level.run(TanhErf([-1e30; LANES]));
            assert_eq!((tanhs[0], erfs[0]), (-1.0, -1.0));
        }
    }

    struct Exp([f32; LANES]);

    impl Kernel for Exp {
        type Output = [f32; LANES];

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> [f32; LANES] {
            // SAFETY: the array holds sixteen values.
            let x = unsafe { s.load(self.0.as_ptr()) };
            s.to_array(exp(s, x))
        }
    }

    #[test]
    fn exp_is_accurate_everywhere() {
        for isa in available() {
            let level = Level::detect(Some(isa)).expect("available");
            for start in -8700..8798 {
                let x: [f32; LANES] = std::array::from_fn(|i| start as f32 * 0.01 + i as f32 * 0.000_6);
                for (x, y) in x.into_iter().zip(level.run(Exp(x))) {
                    let expected = f64::from(x).exp();
                    assert!((f64::from(y) - expected).abs() <= expected * 2.5e-7, "{isa:?}: exp({x}) = {y}, not {expected}");
                }
            }
            assert_eq!(level.run(Exp([f32::NEG_INFINITY; LANES])), [0.0; LANES]);
            assert_eq!(level.run(Exp([0.0; LANES])), [1.0; LANES]);
            assert_eq!(level.run(Exp([-100.0; LANES])), [0.0; LANES]);
        }
    }
}
