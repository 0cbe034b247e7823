use super::{SampledToken, ScoredToken, math};

/// `ln(sum(e^v))`: what to subtract from a logit to get its log-probability.
fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = math::max(logits);
    if max.is_finite() { f64::from(max) + math::exp_sum(logits, max, 1.0).ln() } else { f64::from(max) }
}

/// Log-probability of `token`, and the `count` likeliest tokens in descending order, lower id first among equals.
pub(super) fn logprobs(logits: &[f32], token: u32, count: usize) -> (f32, Vec<(u32, f32)>) {
    let log_sum = log_sum_exp(logits);
    let logprob = |id: u32| (f64::from(logits[id as usize]) - log_sum) as f32;
    (logprob(token), math::top_indices(logits, count).into_iter().map(|id| (id, logprob(id))).collect())
}

/// How likely a row of raw logits makes `token`, beside the `count` likeliest.
pub fn score(logits: &[f32], token: u32, count: usize) -> ScoredToken {
    let (logprob, top) = logprobs(logits, token, count);
    let own = logits[token as usize];
    let rank = 1 + logits.iter().filter(|&&logit| logit > own).count();
    ScoredToken { token: SampledToken { token, logprob: Some(logprob), top }, rank }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_f64() {
        let logits: Vec<f32> = (0..151_936u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 1e6 - 40.0).collect();
        let exact = logits.iter().map(|&v| f64::from(v).exp()).sum::<f64>().ln();
        let (logprob, top) = logprobs(&logits, 17, 5);
        assert!((f64::from(logprob) - (f64::from(logits[17]) - exact)).abs() < 1e-5);
        assert_eq!(top.len(), 5);
        assert!(top.windows(2).all(|w| w[0].1 >= w[1].1));
    }

    #[test]
    fn a_rank_counts_the_likelier() {
        let scored = score(&[0.5, 2.0, 0.5, f32::NEG_INFINITY, 1.0], 2, 2);
        assert_eq!(scored.rank, 3);
        assert_eq!(scored.token.top.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 4]);
        assert_eq!(score(&[0.5, 2.0], 1, 0).rank, 1);
    }

    #[test]
    fn survives_masked_logits() {
        let (logprob, top) = logprobs(&[0.0, f32::NEG_INFINITY, 0.0], 2, 3);
        assert!((logprob + std::f32::consts::LN_2).abs() < 1e-6);
        assert_eq!(top.iter().map(|t| t.0).collect::<Vec<_>>(), [0, 2, 1]);
        assert_eq!(top[2].1, f32::NEG_INFINITY);
    }
}
