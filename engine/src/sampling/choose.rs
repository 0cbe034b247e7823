use super::{SampledToken, adjust::adjusted, candidates::Candidates, logprobs::logprobs, math, random};
use crate::scheduler::SampleRequest;

/// Below this temperature the choice is greedy, as in vLLM: dividing by less would overflow.
const MIN_TEMPERATURE: f32 = 1e-5;

/// Chooses one token from a row of raw logits: adjustments and mask, then temperature, then min-p, then top-k, then top-p of what is
/// left (vLLM's order).
///
/// The random number is a function of the request's seed and output position alone. NaN logits are never chosen
/// while another is left; equal logits are ranked by lower id.
pub fn sample(logits: &[f32], request: &SampleRequest) -> SampledToken {
    let mut token = choose(&adjusted(logits, request), request);
    if let Some(mask) = &request.mask
        && !mask.allows(token)
    {
        // Only where every logit that the mask leaves is broken.
        token = mask.first().unwrap_or(token);
    }
    match request.params.logprobs {
        None => SampledToken { token, logprob: None, top: Vec::new() },
        Some(count) => {
            let (logprob, top) = logprobs(logits, token, count as usize);
            SampledToken { token, logprob: Some(logprob), top }
        }
    }
}

fn choose(logits: &[f32], request: &SampleRequest) -> u32 {
    let params = &request.params;
    if params.temperature < MIN_TEMPERATURE || params.top_k == 1 {
        return math::argmax(logits) as u32;
    }
    let max = math::max(logits);
    if !max.is_finite() {
        return math::argmax(logits) as u32;
    }
    let mut candidates = Candidates::new(logits, max, params.temperature);
    if params.min_p > 0.0 {
        candidates.keep_min_p(params.min_p);
    }
    if params.top_k > 0 {
        candidates.keep_top_k(params.top_k as usize);
    }
    if params.top_p < 1.0 {
        candidates.keep_top_p(params.top_p);
    }
    candidates.draw(random::uniform(params.seed, request.output_position))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sampling::SamplingParams;

    fn request(params: SamplingParams, output_position: usize) -> SampleRequest {
        SampleRequest::after(&params, &[], output_position)
    }

    fn params(temperature: f32) -> SamplingParams {
        SamplingParams { temperature, ..SamplingParams::greedy() }
    }

    /// Chi-square distance of 40,000 draws from `probability`, over ids with an expectation of at least 5.
    fn chi_square(logits: &[f32], params: &SamplingParams, probability: &[f64]) -> (f64, usize) {
        let draws = 40_000;
        let mut counts = vec![0u32; logits.len()];
        for i in 0..draws {
            let params = SamplingParams { seed: 11 + i as u64 % 200, ..params.clone() };
            counts[sample(logits, &request(params, i / 200)).token as usize] += 1;
        }
        let mut sum = 0.0;
        let mut degrees = 0;
        for (&count, &p) in counts.iter().zip(probability) {
            let expected = p * draws as f64;
            assert!(p > 0.0 || count == 0, "a truncated token was drawn");
            if expected >= 5.0 {
                sum += (f64::from(count) - expected).powi(2) / expected;
                degrees += 1;
            }
        }
        (sum, degrees - 1)
    }

    fn softmax(logits: &[f32], temperature: f32) -> Vec<f64> {
        let weights: Vec<f64> = logits.iter().map(|&v| f64::from(v / temperature).exp()).collect();
        let total: f64 = weights.iter().sum();
        weights.into_iter().map(|w| w / total).collect()
    }

    #[test]
    fn draws_follow_the_distribution() {
        let logits: Vec<f32> = (0..1200).map(|i| if i % 37 == 0 { 3.0 - i as f32 / 400.0 } else { -4.0 }).collect();
        for temperature in [0.7, 1.0, 1.8] {
            let (distance, degrees) = chi_square(&logits, &params(temperature), &softmax(&logits, temperature));
            // Mean `degrees`, standard deviation sqrt(2 * degrees).
            assert!(distance < degrees as f64 + 4.0 * (2.0 * degrees as f64).sqrt(), "{temperature}: {distance} of {degrees}");
        }
    }

    #[test]
    fn truncated_draws_are_renormalised() {
        let logits = [1.0, 3.0, 2.0, 0.0, 2.5, -1.0];
        let mut probability = softmax(&logits, 1.0);
        for id in [0, 3, 5] {
            probability[id] = 0.0;
        }
        let total: f64 = probability.iter().sum();
        probability.iter_mut().for_each(|p| *p /= total);
        for params in [
            SamplingParams { top_k: 3, ..params(1.0) },
            SamplingParams { min_p: 0.3, ..params(1.0) },
            SamplingParams { top_p: 0.85, ..params(1.0) },
        ] {
            let (distance, _) = chi_square(&logits, &params, &probability);
            // Two degrees of freedom: the 99.9 % quantile is 13.8.
            assert!(distance < 13.8, "{params:?}: {distance}");
        }
    }

    #[test]
    fn broken_logits_still_give_a_token() {
        for params in [params(0.0), params(1.0), SamplingParams { top_p: 0.5, min_p: 0.1, top_k: 2, logprobs: Some(2), ..params(1.0) }] {
            assert_eq!(sample(&[f32::NAN; 4], &request(params.clone(), 0)).token, 0);
            assert_eq!(sample(&[f32::NEG_INFINITY; 4], &request(params.clone(), 0)).token, 0);
            assert_eq!(sample(&[f32::NAN, 0.0, f32::INFINITY], &request(params.clone(), 0)).token, 2);
            assert_eq!(sample(&[f32::NAN, 0.0, f32::NEG_INFINITY], &request(params, 0)).token, 1);
        }
    }

    proptest! {
        #[test]
        fn a_choice_is_pure_and_greedy_is_the_limit(
            logits in prop::collection::vec(-30.0f32..30.0, 1..1500),
            seed: u64, position in 0usize..10_000,
            top_k in 0u32..50, top_p in 0.0f32..=1.0, min_p in 0.0f32..=1.0, temperature in 0.0f32..3.0,
        ) {
            let params = SamplingParams { temperature, top_p, top_k, min_p, seed, ..SamplingParams::greedy() };
            let one = sample(&logits, &request(params.clone(), position));
            let two = sample(&logits, &request(params.clone(), position));
            prop_assert_eq!(&one, &two);
            prop_assert!((one.token as usize) < logits.len());
            let greedy = sample(&logits, &request(SamplingParams::greedy(), position)).token;
            prop_assert_eq!(sample(&logits, &request(SamplingParams { min_p: 1.0, temperature: 0.01, ..params.clone() }, position)).token, greedy);
            prop_assert_eq!(sample(&logits, &request(SamplingParams { top_p: 0.0, ..params }, position)).token,
                if temperature == 0.0 { greedy } else { math::argmax(&logits) as u32 });
        }
    }
}
