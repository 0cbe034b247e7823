//! Prefixes that are found again, prompts computed once for many, guesses that hold.

use tokenflow_engine::scheduler::{NgramConfig, SchedulerConfig, SchedulingPolicy};

use crate::simulation::{Outcome, Request, Scenario, VOCAB, check_outcome, simulate, steady};

fn config() -> SchedulerConfig {
    SchedulerConfig {
        max_num_batched_tokens: 64,
        max_num_seqs: 8,
        block_size: 4,
        num_blocks: 64,
        max_model_len: 1000,
        ..SchedulerConfig::default()
    }
}

fn request(prompt_tokens: u32, max_tokens: usize) -> Request {
    Request { prompt: (0..prompt_tokens).map(|t| t * 7 % VOCAB as u32).collect(), max_tokens, ..Request::default() }
}

fn run(config: SchedulerConfig, requests: Vec<Request>) -> Outcome {
    let scenario = Scenario { config, factor: steady(1.0), requests };
    let outcome = simulate(&scenario, |_, _, _| ());
    check_outcome(&scenario, &outcome);
    outcome
}

#[test]
fn a_prompt_that_came_before_is_found_but_for_its_last_token() {
    let again = |prompt_tokens| Request { arrival_ms: 500, ..request(prompt_tokens, 1) };
    let cached = |requests| run(config(), requests).cached_tokens[&1];
    assert_eq!(cached(vec![request(23, 1), again(23)]), 20);
    assert_eq!(cached(vec![request(24, 1), again(24)]), 20, "a block whose last token must be computed is computed");
    assert_eq!(cached(vec![request(24, 1), again(25)]), 24);
    assert_eq!(cached(vec![request(24, 1), Request { salt: Some("mine"), ..again(25) }]), 0);
    let off = SchedulerConfig { enable_prefix_caching: false, ..config() };
    assert_eq!(run(off, vec![request(24, 1), again(25)]).cached_tokens[&1], 0);
}

#[test]
fn the_next_turn_of_a_chat_finds_the_answer_too() {
    let first = request(10, 20);
    let answer = run(config(), vec![first.clone()]).outputs[&0].0.clone();
    let prompt = first.prompt.iter().chain(&answer).copied().chain([1, 2, 3]).collect();
    let outcome = run(config(), vec![first, Request { prompt, max_tokens: 5, arrival_ms: 500, ..Request::default() }]);
    assert_eq!(outcome.cached_tokens[&1], 28, "all whole blocks of the 29 computed tokens");
}

#[test]
fn what_was_used_longest_ago_is_forgotten_first() {
    let prompt = |salt, arrival_ms| Request { salt: Some(salt), arrival_ms, ..request(33, 1) };
    // Each has 8 whole blocks and one more, and the pool has 20: the third salt's blocks take the place of the second's.
    let config = SchedulerConfig { num_blocks: 20, ..config() };
    let requests = vec![prompt("a", 0), prompt("b", 100), prompt("a", 200), prompt("c", 300), prompt("a", 400), prompt("b", 500)];
    let cached = run(config, requests).cached_tokens;
    assert_eq!((cached[&2], cached[&4]), (32, 32), "it was used in between");
    assert!(cached[&5] < 32, "{} were still there", cached[&5]);
}

#[test]
fn a_preempted_sequence_finds_its_own_blocks() {
    let requests: Vec<_> = (0..4).map(|i| Request { seed: i, salt: Some(["a", "b", "c", "d"][i as usize]), ..request(8, 30) }).collect();
    let computed = |enable_prefix_caching| {
        let outcome = run(SchedulerConfig { num_blocks: 24, enable_prefix_caching, ..config() }, requests.clone());
        assert!(outcome.preemptions.values().sum::<u32>() > 0);
        outcome.computed_tokens
    };
    assert!(computed(true) < computed(false));
}

#[test]
fn a_group_computes_its_prompt_once() {
    for (enable_prefix_caching, prompt_tokens) in [(true, 23), (true, 24), (true, 25), (false, 23), (false, 24), (false, 25), (false, 3)] {
        let one = |seed| Request { seed, group: Some(0), ..request(prompt_tokens, 10) };
        let group: Vec<_> = (0..4).map(one).collect();
        let outcome = run(SchedulerConfig { enable_prefix_caching, ..config() }, group.clone());
        // Each of the others computes the last token of the prompt again, and all their own.
        let (prompt, answer) = (prompt_tokens as usize, 9);
        assert_eq!(outcome.computed_tokens, prompt + 3 + 4 * answer, "{prompt_tokens} tokens");
        assert_eq!(outcome.copies, if prompt_tokens % 4 == 1 { 0 } else { 3 });
        let outputs = |i| &outcome.outputs[&i].0;
        assert!((1..4).any(|i| outputs(i) != outputs(0)), "each has its own random numbers");
    }
}

#[test]
fn a_group_whose_first_goes_away_is_served_all_the_same() {
    for cancel_after_ms in [(0, false), (0, true), (3, true), (6, false)] {
        let one = |seed| Request { seed, group: Some(0), ..request(200, 10) };
        let mut group: Vec<_> = (0..4).map(one).collect();
        group[0].cancel_after_ms = Some(cancel_after_ms);
        let outcome = run(config(), group);
        assert!(outcome.computed_tokens < 2 * 200 + 4 * 20, "{} tokens", outcome.computed_tokens);
    }
}

#[test]
fn a_group_of_single_tokens_needs_its_prompt_once() {
    let one = |seed| Request { seed, group: Some(0), ..request(23, 1) };
    let outcome = run(config(), (0..4).map(one).collect());
    assert_eq!(outcome.computed_tokens, 23 + 3 * 3, "the first has gone, so the others compute what is not a whole block");
    assert_eq!(outcome.steps, 2);
}

#[test]
fn right_guesses_save_steps_and_change_nothing() {
    let requests: Vec<_> = (0..3).map(|seed| Request { seed, ..request(20, 60) }).collect();
    let plain = run(config(), requests.clone());
    let ngram = NgramConfig { num_speculative_tokens: 4, prompt_lookup_max: 3, prompt_lookup_min: 2, disable_by_batch_size: 8 };
    let guessed = run(SchedulerConfig { speculative: Some(ngram), ..config() }, requests.clone());
    assert_eq!(guessed.outputs, plain.outputs);
    assert!(guessed.accepted_drafts > 0 && guessed.steps < plain.steps, "{} steps instead of {}", guessed.steps, plain.steps);
    let large = NgramConfig { disable_by_batch_size: 2, ..ngram };
    let crowded = run(SchedulerConfig { speculative: Some(large), ..config() }, requests);
    assert!(crowded.accepted_drafts < guessed.accepted_drafts);
}

#[test]
fn the_urgent_take_seats_and_blocks_from_those_who_can_wait() {
    let lazy = Request { priority: 5, ..request(20, 60) };
    let urgent = Request { priority: -1, arrival_ms: 10, salt: Some("own"), ..request(60, 10) };
    for scarce in [SchedulerConfig { max_num_seqs: 1, ..config() }, SchedulerConfig { num_blocks: 22, ..config() }] {
        let run = |policy| run(SchedulerConfig { policy, ..scarce.clone() }, vec![lazy.clone(), urgent.clone()]);
        let end = |outcome: &Outcome, i: u64| *outcome.token_times[&i].last().unwrap();
        let (fcfs, priority) = (run(SchedulingPolicy::Fcfs), run(SchedulingPolicy::Priority));
        assert!(end(&fcfs, 1) > end(&priority, 1));
        assert!(end(&priority, 1) < end(&priority, 0));
        assert_eq!((fcfs.preemptions[&0], priority.preemptions[&0]), (0, 1));
        assert_eq!(priority.preemptions[&1], 0);
    }
}

#[test]
fn forks_whose_leader_has_gone_are_led_by_the_next_and_run_together() {
    let fork = |seed| Request { seed, group: Some(0), ..request(24, 50) };
    let leader = Request { cancel_after_ms: Some((0, false)), ..fork(0) };
    let outcome = run(config(), vec![leader, fork(1), fork(2), fork(3), fork(4)]);
    let ends = *outcome.token_times[&1].last().unwrap();
    assert!((2..5).all(|i| outcome.token_times[&i][0] < ends), "none waits until the one that leads has ended");
    assert!((2..5).all(|i| outcome.cached_tokens[&i] >= 20), "and the prompt is computed once");
}
