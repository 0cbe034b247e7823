//! The operations in f64, as their definitions read.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI, FRAC_2_SQRT_PI, PI};

use crate::backend::{Activation, AttentionConfig};

pub fn rms_norm(x: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
    let scale = 1.0 / (x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64 + eps).sqrt();
    x.iter().zip(weight).map(|(x, w)| x * scale * w).collect()
}

pub fn layer_norm(x: &[f64], weight: &[f64], bias: &[f64], eps: f64) -> Vec<f64> {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / x.len() as f64;
    x.iter().zip(weight).zip(bias).map(|((x, w), b)| (x - mean) / (variance + eps).sqrt() * w + b).collect()
}

pub fn activate(f: Activation, x: f64) -> f64 {
    match f {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Gelu => x / 2.0 * (1.0 + erf(x * FRAC_1_SQRT_2)),
        Activation::GeluTanh => x / 2.0 * (1.0 + (FRAC_2_PI.sqrt() * (x + 0.044_715 * x.powi(3))).tanh()),
    }
}

/// By its Taylor series up to 3, whose terms stay below 3000, and beyond by the continued fraction of `1 - erf`.
pub fn erf(x: f64) -> f64 {
    let size = x.abs();
    if size > 3.0 {
        let fraction = (1..=60).rev().fold(size, |rest, k| size + f64::from(k) / 2.0 / rest);
        return (1.0 - (-size * size).exp() / fraction / PI.sqrt()).copysign(x);
    }
    let (mut term, mut sum) = (x, x);
    for k in 1..80 {
        let k = f64::from(k);
        term *= -x * x / k;
        sum += term / (2.0 * k + 1.0);
    }
    sum * FRAC_2_SQRT_PI
}

/// Half-split pairs; angles in f32, as the contract says.
pub fn rope(head: &[f64], position: usize, inv_freq: &[f32], scale: f64) -> Vec<f64> {
    let mut out = head.to_vec();
    let half = inv_freq.len();
    for i in 0..half {
        let (sin, cos) = f64::from(position as f32 * inv_freq[i]).sin_cos();
        out[i] = (head[i] * cos - head[half + i] * sin) * scale;
        out[half + i] = (head[half + i] * cos + head[i] * sin) * scale;
    }
    out
}

/// Attention of the query head `q` at `position`, over all keys and values of its KV head, one per position.
pub fn attend(q: &[f64], keys: &[Vec<f64>], values: &[Vec<f64>], position: usize, config: &AttentionConfig) -> Vec<f64> {
    let first = config.sliding_window.map_or(0, |w| (position + 1).saturating_sub(w));
    let capped = |score: f64| config.soft_cap.map_or(score, |cap| (score / f64::from(cap)).tanh() * f64::from(cap));
    let scores: Vec<f64> = keys[first..=position].iter().map(|k| capped(dot(q, k) * f64::from(config.scale))).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
    let total: f64 = weights.iter().sum();
    (0..q.len()).map(|d| weights.iter().zip(&values[first..=position]).map(|(w, v)| w * v[d]).sum::<f64>() / total).collect()
}

/// The nearest e4m3 value, ties to even; 448 beyond that.
pub fn round_to_e4m3(x: f64) -> f64 {
    let exponent = x.abs().max(2f64.powi(-6)).log2().floor() as i32;
    let step = 2f64.powi(exponent - 3);
    ((x / step).round_ties_even() * step).clamp(-448.0, 448.0)
}

pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
