//! Functions that have no instruction of their own.

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

#[cfg(test)]
mod tests {
    use super::super::{Kernel, LANES, Level, available};
    use super::*;

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
