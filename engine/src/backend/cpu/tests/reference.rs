//! The operations in f64, as their definitions read.

use crate::backend::AttentionConfig;

pub fn rms_norm(x: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
    let scale = 1.0 / (x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64 + eps).sqrt();
    x.iter().zip(weight).map(|(x, w)| x * scale * w).collect()
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
    let scores: Vec<f64> = keys[first..=position].iter().map(|k| dot(q, k) * f64::from(config.scale)).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
    let total: f64 = weights.iter().sum();
    (0..q.len()).map(|d| weights.iter().zip(&values[first..=position]).map(|(w, v)| w * v[d]).sum::<f64>() / total).collect()
}

pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
