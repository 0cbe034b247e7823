//! Histogram bounds, the same as vLLM's so that its dashboards and recorded queries read ours.

pub(super) const TIME_TO_FIRST_TOKEN: &[f64] =
    &[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0];

pub(super) const PER_TOKEN: &[f64] =
    &[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0];

pub(super) const REQUEST: &[f64] =
    &[0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0];

pub(super) const STEP_TOKENS: &[f64] = &[1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0];

pub(super) const PREEMPTIONS: &[f64] = &[1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0];

/// 1, 2, 5, 10, 20, ... up to `max`.
pub(super) fn one_two_five(max: usize) -> Vec<f64> {
    let mantissas = (0u32..).flat_map(|exponent| [1.0, 2.0, 5.0].map(|m| m * 10f64.powi(exponent as i32)));
    let bounds: Vec<f64> = mantissas.take_while(|&bound| bound <= max as f64).collect();
    if bounds.is_empty() { vec![1.0] } else { bounds }
}

#[cfg(test)]
mod tests {
    use super::one_two_five;

    #[test]
    fn token_count_bounds_reach_the_context_and_no_further() {
        assert_eq!(one_two_five(100), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        assert_eq!(one_two_five(99).last(), Some(&50.0));
        assert_eq!(one_two_five(0), [1.0]);
    }
}
