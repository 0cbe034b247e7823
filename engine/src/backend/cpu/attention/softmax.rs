//! The softmax of a row's scores, a tile at a time.

use std::ops::Range;

use super::super::{
    isa::{
        LANES, Simd,
        math::{exp, tanh},
    },
    kv::GROUP,
    product::Pair,
};
use crate::backend::AttentionConfig;

/// Scales and caps the scores of positions `start..`, sets those outside `visible` to minus infinity, and returns the maximum of them and
/// `max`.
#[inline(always)]
pub(super) fn mask_and_max<S: Simd>(
    s: S,
    scores: &mut [f32],
    start: usize,
    visible: Range<usize>,
    config: &AttentionConfig,
    max: f32,
) -> f32 {
    const LANE: [f32; LANES] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0];
    let minus_infinity = s.splat(f32::NEG_INFINITY);
    let mut maxima = s.splat(max);
    for (scores, at) in scores.as_chunks_mut::<LANES>().0.iter_mut().zip((start..).step_by(GROUP)) {
        // SAFETY: sixteen values each.
        unsafe {
            let mut x = s.mul(s.load(scores.as_ptr()), s.splat(config.scale));
            if let Some(cap) = config.soft_cap {
                x = s.mul(tanh(s, s.div(x, s.splat(cap))), s.splat(cap));
            }
            if at < visible.start || at + GROUP > visible.end {
                let lane = s.load(LANE.as_ptr());
                x = s.select_lt(lane, s.splat(visible.start.saturating_sub(at) as f32), minus_infinity, x);
                x = s.select_lt(lane, s.splat(visible.end.saturating_sub(at) as f32), x, minus_infinity);
            }
            maxima = s.max(maxima, x);
            s.store(x, scores.as_mut_ptr());
        }
    }
    s.max_lane(maxima)
}

/// Packs `e^(score - max)` as weights and returns their sum.
#[inline(always)]
pub(super) fn softmax_weights<S: Simd, A: Pair>(s: S, scores: &[f32], max: f32, weights: &mut [A]) -> f32 {
    let max = s.splat(max);
    let mut sums = s.splat(0.0);
    for (scores, weights) in scores.as_chunks::<LANES>().0.iter().zip(weights.chunks_exact_mut(LANES / 2)) {
        // SAFETY: sixteen values.
        let weight = exp(s, s.sub(unsafe { s.load(scores.as_ptr()) }, max));
        sums = s.add(sums, weight);
        A::pack(&s.to_array(weight), weights);
    }
    s.sum(sums)
}
