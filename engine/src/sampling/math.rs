//! Passes over a row of logits, written so that the compiler turns them into SIMD on any target.
//!
//! Only additions and multiplications in a fixed order: results are the same on every machine. NaN counts as minus infinity.

/// Width of the blocks in which a row is summed and searched.
pub(super) const CHUNK: usize = 512;
const LANES: usize = 16;

/// Largest value; minus infinity for an empty row.
pub(super) fn max(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (blocks, rest) = values.as_chunks::<LANES>();
    for block in blocks {
        for (lane, &v) in lanes.iter_mut().zip(block) {
            *lane = if v > *lane { v } else { *lane };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m })
}

/// Index of the largest value, the lowest of equals.
pub(super) fn argmax(values: &[f32]) -> usize {
    let (mut best, mut at) = (f32::NEG_INFINITY, 0);
    for (i, chunk) in values.chunks(CHUNK).enumerate() {
        let m = max(chunk);
        if m > best {
            best = m;
            at = i * CHUNK + chunk.iter().position(|&v| v == m).unwrap_or(0);
        }
    }
    at
}

/// `e^x` for `x <= 0`, with a relative error below 2e-7; 0 below -87 and for NaN.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let t = x * std::f32::consts::LOG2_E + ROUND;
    let n = t - ROUND;
    // ln 2 in two parts (Cody and Waite), so that the reduction is exact to the last bits.
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    p = p * r * r + r + 1.0;
    let power_of_two = f32::from_bits((t.to_bits() << 23).wrapping_add(0x3f80_0000));
    if x > -87.0 { p * power_of_two } else { 0.0 }
}

/// Sum over a chunk of `e^((v - max) * scale)`.
pub(super) fn exp_sum_chunk(values: &[f32], max: f32, scale: f32) -> f64 {
    let mut lanes = [0f32; LANES];
    let (blocks, rest) = values.as_chunks::<LANES>();
    for block in blocks {
        for (lane, &v) in lanes.iter_mut().zip(block) {
            *lane += exp((v - max) * scale);
        }
    }
    let rest: f32 = rest.iter().map(|&v| exp((v - max) * scale)).sum();
    lanes.iter().map(|&v| f64::from(v)).sum::<f64>() + f64::from(rest)
}

/// Sum of `e^((v - max) * scale)`: short runs in f32, their sum in f64.
pub(super) fn exp_sum(values: &[f32], max: f32, scale: f32) -> f64 {
    values.chunks(CHUNK).map(|chunk| exp_sum_chunk(chunk, max, scale)).sum()
}

/// An integer that orders by value, then by lower index.
#[inline]
fn key(value: f32, index: usize) -> u64 {
    let bits = if value.is_nan() { f32::NEG_INFINITY } else { value + 0.0 }.to_bits();
    let ordered = if bits >> 31 == 1 { !bits } else { bits | 0x8000_0000 };
    u64::from(ordered) << 32 | u64::from(!(index as u32))
}

/// Indices of the `k` largest values, largest first, lower index first among equals; all of them when there are fewer.
pub(super) fn top_indices(values: &[f32], k: usize) -> Vec<u32> {
    const GROUP: usize = 64;
    let k = k.min(values.len());
    if k == 0 {
        return Vec::new();
    }
    let mut keys: Vec<u64> = if k * 2 < values.len() / GROUP {
        // The k-th largest maximum of a group bounds the k-th largest value from below, so few values need to be sorted.
        let maxima: Vec<f32> = values.chunks(GROUP).map(max).collect();
        let mut ranked = maxima.clone();
        let (_, &mut bound, _) = ranked.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
        let groups = values.chunks(GROUP).enumerate().filter(|(i, _)| maxima[*i] >= bound);
        groups
            .flat_map(|(i, group)| group.iter().enumerate().map(move |(j, &v)| (v, i * GROUP + j)))
            .filter(|&(v, _)| v >= bound || v.is_nan())
            .map(|(v, i)| key(v, i))
            .collect()
    } else {
        values.iter().enumerate().map(|(i, &v)| key(v, i)).collect()
    };
    if k < keys.len() {
        keys.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
        keys.truncate(k);
    }
    keys.sort_unstable_by(|a, b| b.cmp(a));
    keys.into_iter().map(|key| !(key as u32)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn exp_is_accurate() {
        for i in 0..870_000 {
            let x = -(i as f32) * 1e-4;
            let exact = f64::from(x).exp();
            assert!(((f64::from(exp(x)) - exact) / exact).abs() < 2e-7, "{x}: {} for {exact}", exp(x));
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!([exp(-100.0), exp(f32::NEG_INFINITY), exp(f32::NAN)], [0.0; 3]);
    }

    proptest! {
        #[test]
        fn top_indices_equals_a_full_sort(values in prop::collection::vec(prop_oneof![4 => -3i8..3, 1 => -100i8..100], 1..2000), k in 0usize..40) {
            let mut values: Vec<f32> = values.into_iter().map(f32::from).collect();
            if values.len() > 7 { values[3] = f32::NAN; values[7] = f32::NEG_INFINITY; }
            let mut sorted: Vec<u32> = (0..values.len() as u32).collect();
            let value = |i: u32| if values[i as usize].is_nan() { f32::NEG_INFINITY } else { values[i as usize] };
            sorted.sort_by(|&a, &b| value(b).partial_cmp(&value(a)).unwrap().then(a.cmp(&b)));
            prop_assert_eq!(argmax(&values) as u32, sorted[0]);
            sorted.truncate(k);
            prop_assert_eq!(top_indices(&values, k), sorted);
        }
    }
}
