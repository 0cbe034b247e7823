use crate::api::generation::Delta;

/// The `n` likeliest of each `best_of` outputs in a row, the likeliest first: by the mean of their tokens' log-probabilities.
pub(super) fn best(wholes: Vec<Delta>, best_of: usize, n: usize) -> Vec<Delta> {
    if best_of == n {
        return wholes;
    }
    let mut wholes = wholes.into_iter();
    let mut kept = Vec::new();
    loop {
        let mut group: Vec<Delta> = wholes.by_ref().take(best_of).collect();
        if group.is_empty() {
            return kept;
        }
        group.sort_by(|a, b| mean_logprob(b).total_cmp(&mean_logprob(a)));
        kept.extend(group.into_iter().take(n));
    }
}

fn mean_logprob(whole: &Delta) -> f32 {
    let sum: f32 = whole.tokens.iter().map(|token| token.logprob.unwrap_or(f32::NEG_INFINITY)).sum();
    sum / whole.tokens.len().max(1) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::SampledToken;

    #[test]
    fn the_likeliest_per_token_are_kept_within_each_group() {
        let whole = |text: &str, logprobs: &[f32]| Delta {
            text: text.to_owned(),
            tokens: logprobs.iter().map(|&p| SampledToken { token: 0, logprob: Some(p), top: Vec::new() }).collect(),
            ..Delta::default()
        };
        let wholes = || {
            vec![
                whole("a", &[-1.0]),
                whole("b", &[-0.5, -0.9]),
                whole("c", &[-3.0]),
                whole("d", &[-9.0]),
                whole("e", &[-4.0]),
                whole("f", &[-5.0]),
            ]
        };
        let texts = |wholes: Vec<Delta>| wholes.into_iter().map(|whole| whole.text).collect::<String>();
        assert_eq!(texts(best(wholes(), 3, 2)), "baef");
        assert_eq!(texts(best(wholes(), 3, 1)), "be");
        assert_eq!(texts(best(wholes(), 2, 2)), "abcdef");
    }
}
