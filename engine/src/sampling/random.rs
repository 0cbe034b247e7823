//! Random numbers without state: the same (seed, position) gives the same number, whatever was drawn before.

/// Increment of splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
pub(crate) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Uniform in `[0, 1)`, with 53 random bits.
pub(super) fn uniform(seed: u64, position: usize) -> f64 {
    // The seed is mixed on its own first: seeds 1, 2, 3, ... must not give shifted copies of one stream.
    let stream = splitmix64(seed);
    let bits = splitmix64(stream.wrapping_add(GOLDEN.wrapping_mul(position as u64)));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// What splitmix64 gives in state `state`, whose next state is [`GOLDEN`] further on.
pub(crate) fn splitmix64(state: u64) -> u64 {
    mix(state.wrapping_add(GOLDEN))
}

/// The output function of splitmix64: a bijection whose every input bit reaches every output bit.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_in_both_arguments() {
        for axis in 0..2 {
            let mut counts = [0u32; 64];
            for i in 0..64_000u64 {
                let u = if axis == 0 { uniform(i, 3) } else { uniform(3, i as usize) };
                assert!((0.0..1.0).contains(&u));
                counts[(u * 64.0) as usize] += 1;
            }
            let chi_square: f64 = counts.iter().map(|&c| (f64::from(c) - 1000.0).powi(2) / 1000.0).sum();
            // 63 degrees of freedom: the 99.9 % quantile is 103.4.
            assert!(chi_square < 103.4, "axis {axis}: {chi_square}");
        }
    }

    #[test]
    fn neighbouring_seeds_are_independent() {
        let n = 20_000;
        let mean_product: f64 = (0..n).map(|i| (uniform(i, 0) - 0.5) * (uniform(i + 1, 0) - 0.5) * 12.0).sum::<f64>() / n as f64;
        let shifted: f64 = (0..n).map(|i| (uniform(i, 1) - 0.5) * (uniform(i + 1, 0) - 0.5) * 12.0).sum::<f64>() / n as f64;
        assert!(mean_product.abs() < 0.03 && shifted.abs() < 0.03, "{mean_product} {shifted}");
    }
}
