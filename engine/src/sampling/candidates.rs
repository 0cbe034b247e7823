use std::borrow::Cow;

use super::math::{self, CHUNK};

/// Buckets of [`Candidates::keep_top_p`]: a 64th of a nat each, the last one open.
const BUCKETS: usize = 64 * 32;

/// Bucket of the logarithm of a weight: 0 for the likeliest, the last one for NaN.
#[inline(always)]
fn bucket(scaled: f32) -> u16 {
    // 2^23 leaves the nearest integer in the low bits; a cast would not become SIMD.
    const ROUND: f32 = 8_388_608.0;
    ((scaled * -64.0).min((BUCKETS - 1) as f32) + ROUND).to_bits() as u16
}

/// The tokens that truncation has left, in order of id, and the weight `e^((logit - max) / temperature)` that each stands for.
pub(super) struct Candidates<'a> {
    /// `None` while every token is left.
    ids: Option<Vec<u32>>,
    logits: Cow<'a, [f32]>,
    max: f32,
    inverse_temperature: f32,
}

impl<'a> Candidates<'a> {
    /// `max` must be finite.
    pub(super) fn new(logits: &'a [f32], max: f32, temperature: f32) -> Self {
        Self { ids: None, logits: Cow::Borrowed(logits), max, inverse_temperature: 1.0 / temperature }
    }

    /// Drops tokens whose probability is below `min_p` times that of the likeliest.
    pub(super) fn keep_min_p(&mut self, min_p: f32) {
        let bound = self.max + min_p.ln() / self.inverse_temperature;
        let kept = (0..self.logits.len() as u32).filter(|&i| self.logits[i as usize] >= bound || self.logits[i as usize] == self.max);
        self.retain(kept.collect());
    }

    /// Keeps the `k` likeliest tokens.
    pub(super) fn keep_top_k(&mut self, k: usize) {
        if k < self.logits.len() {
            let mut kept = math::top_indices(&self.logits, k);
            kept.sort_unstable();
            self.retain(kept);
        }
    }

    /// Keeps the smallest set of likeliest tokens that has at least `top_p` of the weight of those left.
    ///
    /// Tokens are sorted into buckets by logit, and only the bucket in which the sum reaches its goal is sorted within.
    pub(super) fn keep_top_p(&mut self, top_p: f32) {
        let mut sums = vec![0f64; BUCKETS];
        let (mut weights, mut buckets) = ([0f32; CHUNK], [0u16; CHUNK]);
        for chunk in self.logits.chunks(CHUNK) {
            // Apart from the scattered additions, so that this part becomes SIMD.
            for ((&v, weight), number) in chunk.iter().zip(&mut weights).zip(&mut buckets) {
                let scaled = (v - self.max) * self.inverse_temperature;
                (*weight, *number) = (math::exp(scaled), bucket(scaled));
            }
            for (&weight, &number) in weights.iter().zip(&buckets).take(chunk.len()) {
                sums[usize::from(number)] += f64::from(weight);
            }
        }
        let goal = sums.iter().sum::<f64>() * f64::from(top_p);
        let (mut reached, mut border) = (0.0, 0);
        while border + 1 < BUCKETS && reached + sums[border] < goal {
            reached += sums[border];
            border += 1;
        }
        let mut open: Vec<u32> = (0..self.logits.len() as u32).filter(|&i| usize::from(bucket(self.scaled(i))) == border).collect();
        open.sort_by(|&a, &b| self.logits[b as usize].total_cmp(&self.logits[a as usize]));
        let found = open.iter().find(|&&i| {
            reached += f64::from(math::exp(self.scaled(i)));
            reached >= goal
        });
        // Summed in another order, the border bucket may fall short of the goal by a hair: then all of it is kept.
        let Some(last) = found.or(open.last()) else { return };
        let (last, bound) = (*last, self.logits[*last as usize]);
        self.retain(
            (0..self.logits.len() as u32)
                .filter(|&i| self.logits[i as usize] > bound || (self.logits[i as usize] == bound && i <= last))
                .collect(),
        );
    }

    /// The token at which the running sum of weights passes `u` (0..1) of the total.
    pub(super) fn draw(&self, u: f64) -> u32 {
        let sums: Vec<f64> =
            self.logits.chunks(CHUNK).map(|chunk| math::exp_sum_chunk(chunk, self.max, self.inverse_temperature)).collect();
        let mut left = sums.iter().sum::<f64>() * u;
        let mut chunk = 0;
        while chunk + 1 < sums.len() && left >= sums[chunk] {
            left -= sums[chunk];
            chunk += 1;
        }
        // Rounding may leave a rest behind the last token: the last one with any weight is taken then.
        let mut chosen = None;
        for i in chunk * CHUNK..self.logits.len() {
            let weight = f64::from(math::exp(self.scaled(i as u32)));
            if weight > 0.0 {
                chosen = Some(i);
                if left < weight {
                    break;
                }
            }
            left -= weight;
        }
        let index = chosen.unwrap_or_else(|| math::argmax(&self.logits));
        self.ids.as_ref().map_or(index as u32, |ids| ids[index])
    }

    /// Logarithm of the weight of the token at `index`.
    fn scaled(&self, index: u32) -> f32 {
        (self.logits[index as usize] - self.max) * self.inverse_temperature
    }

    /// `kept` are indices into what is left, ascending.
    fn retain(&mut self, kept: Vec<u32>) {
        self.logits = kept.iter().map(|&i| self.logits[i as usize]).collect();
        self.ids = Some(match self.ids.take() {
            Some(ids) => kept.iter().map(|&i| ids[i as usize]).collect(),
            None => kept,
        });
    }

    #[cfg(test)]
    pub(super) fn ids(&self) -> Vec<u32> {
        self.ids.clone().unwrap_or_else(|| (0..self.logits.len() as u32).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Truncation by its definition: full sort, f64.
    fn expected(logits: &[f32], temperature: f32, min_p: f32, top_k: usize, top_p: f32) -> Vec<u32> {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weight = |i: u32| f64::from((logits[i as usize] - max) / temperature).exp();
        let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
        ids.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
        ids.retain(|&i| weight(i) >= f64::from(min_p));
        ids.truncate(top_k);
        let total: f64 = ids.iter().map(|&i| weight(i)).sum();
        let mut sum = 0.0;
        let mut kept = Vec::new();
        for i in ids {
            if sum >= total * f64::from(top_p) && !kept.is_empty() {
                break;
            }
            sum += weight(i);
            kept.push(i);
        }
        kept.sort_unstable();
        kept
    }

    proptest! {
        #[test]
        fn truncation_equals_its_definition(
            logits in prop::collection::vec(-200i32..200, 1..700),
            temperature in prop::sample::select(vec![0.3f32, 1.0, 2.5]),
            min_p in prop::sample::select(vec![0.0103f32, 0.317]),
            top_k in 1usize..800,
            top_p in prop::sample::select(vec![0.0137f32, 0.51234, 0.98765]),
        ) {
            let logits: Vec<f32> = logits.into_iter().map(|v| v as f32 / 16.0).collect();
            let mut candidates = Candidates::new(&logits, math::max(&logits), temperature);
            candidates.keep_min_p(min_p);
            candidates.keep_top_k(top_k);
            candidates.keep_top_p(top_p);
            prop_assert_eq!(candidates.ids(), expected(&logits, temperature, min_p, top_k, top_p));
        }
    }

    #[test]
    fn top_p_of_a_flat_row_keeps_its_share() {
        let logits = vec![1.5; 1000];
        let mut candidates = Candidates::new(&logits, 1.5, 1.0);
        candidates.keep_top_p(0.25);
        assert_eq!(candidates.ids(), (0..250).collect::<Vec<_>>());
    }

    #[test]
    fn top_p_zero_keeps_the_likeliest() {
        let mut candidates = Candidates::new(&[0.0, 2.0, 1.0], 2.0, 1.0);
        candidates.keep_top_p(0.0);
        assert_eq!(candidates.ids(), [1]);
    }
}
