//! What health leaves of a step's budget, and of a prompt's share in it.

use super::{MIN_STEP_BUDGET, law::fail_open};
use crate::scheduler::Pacing;

/// Tokens that a step may have: `max_num_batched_tokens`, under `global` scaled by the aggregate health.
pub fn step_budget(pacing: Pacing, max_num_batched_tokens: usize, health_factor: impl FnOnce() -> f64) -> usize {
    match pacing {
        Pacing::Off | Pacing::PerConnection => max_num_batched_tokens,
        Pacing::Global => {
            let scaled = (max_num_batched_tokens as f64 * fail_open(health_factor())).round() as usize;
            scaled.max(MIN_STEP_BUDGET).min(max_num_batched_tokens)
        }
    }
}

/// Tokens of a prompt to compute now, of `remaining` where the step has room for `left`: what is free, scaled by the
/// connection's health, but at least a block, so that it makes progress.
pub fn prefill_chunk(remaining: usize, left: usize, health: f64, block_size: usize) -> usize {
    let share = (left as f64 * fail_open(health)).ceil() as usize;
    share.max(block_size).min(remaining).min(left)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn global_scales_the_budget_down_to_a_floor() {
        assert_eq!(step_budget(Pacing::Global, 2048, || 0.25), 512);
        assert_eq!(step_budget(Pacing::Global, 2048, || 0.0), MIN_STEP_BUDGET);
        assert_eq!(step_budget(Pacing::Global, 4, || 0.0), 4);
        assert_eq!(step_budget(Pacing::Global, 2048, || f64::NAN), 2048);
        assert_eq!(step_budget(Pacing::PerConnection, 2048, || 0.25), 2048);
    }

    #[test]
    fn a_prompt_on_a_bad_link_gets_a_share_but_at_least_a_block() {
        assert_eq!(prefill_chunk(5000, 2048, 0.25, 16), 512);
        assert_eq!(prefill_chunk(5000, 2048, 0.0, 16), 16);
        assert_eq!(prefill_chunk(5000, 8, 0.0, 16), 8);
        assert_eq!(prefill_chunk(100, 2048, 0.25, 16), 100);
    }

    proptest! {
        #[test]
        fn a_chunk_is_monotone_in_health_and_fits(
            remaining in 1..5000usize, left in 1..5000usize, block in 1..64usize, low in 0.0..=1.0f64, high in 0.0..=1.0f64,
        ) {
            let (low, high) = (low.min(high), low.max(high));
            let chunk = prefill_chunk(remaining, left, low, block);
            prop_assert!(chunk >= 1 && chunk <= prefill_chunk(remaining, left, high, block));
            prop_assert_eq!(prefill_chunk(remaining, left, 1.0, block), remaining.min(left));
        }
    }
}
