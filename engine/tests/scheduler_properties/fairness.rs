//! Nobody waits for ever: how long a request can wait does not depend on how many come after it.

use proptest::prelude::*;
use tokenflow_engine::scheduler::SchedulerConfig;

use crate::simulation::{Outcome, Request, Scenario, check_outcome, simulate, steady};

fn flood(config: SchedulerConfig, before: &[Request], giant: &Request, short: &Request, count: usize, every_ms: u64) -> Outcome {
    let after = (0..count as u64).map(|i| Request { arrival_ms: giant.arrival_ms + i * every_ms, seed: i, ..short.clone() });
    let requests = before.iter().chain([giant]).cloned().chain(after).collect();
    let scenario = Scenario { config, factor: steady(1.0), requests };
    let outcome = simulate(&scenario, |_, _, _| ());
    check_outcome(&scenario, &outcome);
    outcome
}

prop_compose! {
    fn plain(prompt: std::ops::Range<usize>, output: std::ops::Range<usize>)(
        prompt in prop::collection::vec(0..50u32, prompt), max_tokens in output,
    ) -> Request {
        Request { prompt, max_tokens, ..Request::default() }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// The bound: while a request is the first of all that are there, each step computes at least one of its tokens, or one of those that
    /// were let past it, whose number is at most that of seats. So it has its first token within as many steps as those before it have
    /// tokens, those let past it have tokens, and its prompt has tokens: whatever comes later.
    #[test]
    fn a_giant_is_served_whatever_comes_after_it(
        before in prop::collection::vec(plain(1..60, 1..30), 0..5), giant in plain(60..200, 1..20), short in plain(1..20, 1..20),
        max_num_seqs in 1..8usize, spare in 1..40usize, threshold in 0..40usize, quantum in 0..20usize, block_size in 1..9usize, every_ms in 0..4u64,
    ) {
        let config = SchedulerConfig {
            max_num_seqs,
            max_num_batched_tokens: max_num_seqs + spare,
            long_prefill_token_threshold: threshold,
            prefill_quantum: quantum,
            block_size,
            num_blocks: 230usize.div_ceil(block_size),
            max_model_len: 1000,
            ..SchedulerConfig::default()
        };
        let tokens = |request: &Request| request.prompt.len() + request.max_tokens;
        let bound = before.iter().map(tokens).sum::<usize>() + max_num_seqs * tokens(&short) + giant.prompt.len();
        let outcome = flood(config, &before, &giant, &short, 120, every_ms);
        let steps = outcome.steps_to_first_token[&(before.len() as u64)];
        prop_assert!(steps <= bound, "{steps} steps, the bound is {bound}");
    }

    /// Prompts that come together are answered one after the other, and the last of them as early as if all were one step.
    #[test]
    fn prompts_take_turns(prompts in prop::collection::vec(plain(40..64, 1..2), 2..10)) {
        let config = |prefill_quantum| SchedulerConfig { prefill_quantum, num_blocks: 100, max_model_len: 1000, ..SchedulerConfig::default() };
        let run = |config| simulate(&Scenario { config, factor: steady(1.0), requests: prompts.clone() }, |_, _, _| ());
        let (together, in_turn) = (run(config(0)), run(config(32)));
        prop_assert_eq!((together.steps, in_turn.steps), (1, prompts.len()));
        prop_assert_eq!(&together.outputs, &in_turn.outputs);
        let firsts = |outcome: &Outcome| outcome.token_times.values().map(|times| times[0]).collect::<Vec<_>>();
        prop_assert!(firsts(&in_turn).is_sorted());
    }

    /// A prompt within the threshold shares each step with the giant before it, instead of waiting for the whole of it.
    #[test]
    fn a_short_prompt_does_not_wait_for_a_giant(giant in plain(400..600, 1..5), short in plain(1..30, 1..5)) {
        let config = SchedulerConfig {
            max_num_batched_tokens: 64,
            long_prefill_token_threshold: 32,
            num_blocks: 100,
            max_model_len: 1000,
            ..SchedulerConfig::default()
        };
        let short = Request { arrival_ms: 1, ..short };
        let outcome = flood(config, &[], &giant, &short, 1, 0);
        prop_assert!(outcome.steps_to_first_token[&1] <= 2, "{} steps", outcome.steps_to_first_token[&1]);
    }
}
