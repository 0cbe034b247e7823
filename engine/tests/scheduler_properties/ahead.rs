//! The next step planned while one runs: what is gained, and what it must not change.

use std::time::Duration;

use tokenflow_engine::scheduler::{
    Cap, Caps, FinishReason, MAX_STEPS_IN_FLIGHT, NgramConfig, Pacing, Scheduler, SchedulerConfig, SequenceId, StepPlan,
};

use crate::simulation::{CHUNK_BYTES, FakeExecutor, FakeNetwork, Link, Outcome, Request, Scenario, VOCAB, check_outcome, simulate, steady};

fn config() -> SchedulerConfig {
    SchedulerConfig {
        max_num_batched_tokens: 64,
        max_num_seqs: 8,
        block_size: 4,
        num_blocks: 64,
        max_model_len: 1000,
        max_steps_in_flight: MAX_STEPS_IN_FLIGHT,
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

fn one_by_one(config: SchedulerConfig) -> SchedulerConfig {
    SchedulerConfig { max_steps_in_flight: 1, ..config }
}

/// A scheduler with these requests, and the step that computes their prompts.
fn started(config: &SchedulerConfig, requests: Vec<Request>) -> (Scheduler, FakeExecutor, FakeNetwork, StepPlan) {
    let mut scheduler = Scheduler::new(config.clone());
    let scenario = Scenario { config: config.clone(), factor: steady(1.0), requests };
    (0..scenario.requests.len()).for_each(|i| scheduler.add(scenario.sequence(i)).unwrap());
    let network = FakeNetwork::new(steady(1.0));
    let plan = scheduler.plan(Duration::ZERO, &network).unwrap();
    (scheduler, FakeExecutor::new(config), network, plan)
}

#[test]
fn every_step_but_the_first_is_planned_while_one_runs() {
    let outcome = run(config(), vec![request(20, 40), request(9, 40)]);
    assert_eq!((outcome.steps, outcome.steps_ahead, outcome.pending), (40, 39, 2 * 39));
    assert_eq!(outcome.computed_tokens, 20 + 9 + 2 * 39, "nobody is computed beyond a length that is known in advance");
}

#[test]
fn a_plan_names_the_row_of_a_token_that_is_not_known() {
    let config = SchedulerConfig { long_prefill_token_threshold: 16, ..config() };
    let (mut scheduler, mut executor, network, first) = started(&config, vec![request(8, 9), request(70, 9), request(5, 9)]);
    assert_eq!(first.sequences.iter().map(|s| s.sample.is_some()).collect::<Vec<_>>(), [true, false, true]);
    let second = scheduler.plan(Duration::ZERO, &network).unwrap();
    let share = |i: usize| (second.sequences[i].pending, second.sequences[i].start, &second.sequences[i].tokens[..]);
    assert_eq!((share(0), share(2)), ((Some(0), 8, &[0][..]), (Some(1), 5, &[0][..])));
    assert_eq!(second.sequences[1].pending, None, "a prompt is known");
    assert_eq!(second.sequences[0].sample.as_ref().map(|sample| sample.output_position), Some(1));
    assert_eq!(scheduler.plan(Duration::ZERO, &network), None, "two steps at a time");
    let outputs = [&first, &second].map(|plan| executor.execute(plan));
    let [one, two] = outputs;
    assert_eq!(scheduler.apply(&first, one, Duration::ZERO).len(), 2);
    let third = scheduler.plan(Duration::ZERO, &network).unwrap();
    assert_eq!(third.sequences[0].start, 9);
    assert_eq!(scheduler.apply(&second, two, Duration::ZERO).len(), 3);
    assert_eq!(scheduler.check_invariants(), Ok(()));
}

#[test]
fn nothing_is_guessed_behind_a_step_in_flight() {
    let ngram = NgramConfig { num_speculative_tokens: 4, prompt_lookup_max: 3, prompt_lookup_min: 2, disable_by_batch_size: 1 };
    let config = SchedulerConfig { max_num_batched_tokens: 15, speculative: Some(ngram), ..config() };
    let repeats = Request { prompt: vec![3; 15], ..request(0, 20) };
    let (mut scheduler, _, network, first) = started(&config, vec![request(1, 1), repeats]);
    assert_eq!(first.sequences[1].tokens.len(), 14);
    let second = scheduler.plan(Duration::ZERO, &network).unwrap();
    assert_eq!((second.sequences[0].tokens.len(), second.sequences[0].num_draft_tokens), (1, 0));
}

#[test]
fn a_stop_token_is_found_a_step_late_and_nothing_comes_of_that_step() {
    let requests = || (0..8).map(|seed| Request { seed, stops: true, ..request(6, 200) }).collect::<Vec<_>>();
    let (alone, ahead) = (run(one_by_one(config()), requests()), run(config(), requests()));
    assert_eq!(ahead.outputs, alone.outputs);
    let stopped = ahead.outputs.values().filter(|(_, finish)| *finish == Some(FinishReason::Stop)).count();
    assert!(stopped > 0);
    assert_eq!(ahead.computed_tokens, alone.computed_tokens + stopped, "one token each");
}

#[test]
fn who_ends_in_flight_leaves_its_seat_at_once_and_its_blocks_before_anyone_is_preempted() {
    let (mut scheduler, mut executor, network, first) =
        started(&SchedulerConfig { max_num_seqs: 1, ..config() }, vec![request(8, 1), request(8, 5)]);
    let second = scheduler.plan(Duration::ZERO, &network).unwrap();
    assert_eq!(second.sequences[0].id, SequenceId(1), "it starts while the first's last token is made");
    assert_eq!(scheduler.stats().running, 2);
    let output = executor.execute(&first);
    let updates = scheduler.apply(&first, output, Duration::ZERO);
    assert_eq!(updates[0].finish, Some(FinishReason::Length));
    assert_eq!((scheduler.stats().running, scheduler.check_invariants()), (1, Ok(())));

    // The first two fill the pool; the third needs what the first leaves.
    let full = SchedulerConfig { num_blocks: 6, enable_prefix_caching: false, ..config() };
    let outcome = run(full, vec![request(12, 1), Request { seed: 1, ..request(12, 12) }]);
    assert_eq!(outcome.preemptions[&1], 0);
}

#[test]
fn what_a_step_in_flight_filled_is_found_once_it_is_back() {
    let (mut scheduler, mut executor, network, first) = started(&config(), vec![request(24, 1)]);
    let again = Scenario { config: config(), factor: steady(1.0), requests: vec![request(24, 1), request(24, 1)] };
    let output = executor.execute(&first);
    let mut early = scheduler.clone();
    early.add(again.sequence(1)).unwrap();
    assert_eq!(early.plan(Duration::ZERO, &network).unwrap().sequences[0].start, 0, "its tokens are known, but not that it was computed");
    assert_eq!(scheduler.plan(Duration::ZERO, &network), None);
    scheduler.apply(&first, output, Duration::ZERO);
    scheduler.add(again.sequence(1)).unwrap();
    assert_eq!(scheduler.plan(Duration::ZERO, &network).unwrap().sequences[0].start, 20);
}

#[test]
fn a_sequence_that_needs_the_host_makes_the_next_step_wait() {
    let penalised = |max_tokens| Request { reads_history: true, ..request(6, max_tokens) };
    let outcome = run(config(), vec![penalised(10), request(9, 30)]);
    let alone = run(one_by_one(config()), vec![penalised(10), request(9, 30)]);
    assert_eq!(outcome.steps, alone.steps, "nobody sits a step out for it");
    assert_eq!(outcome.steps_ahead, 30 - 10, "its last token is the last that is waited for");

    let ngram = NgramConfig { num_speculative_tokens: 4, prompt_lookup_max: 3, prompt_lookup_min: 2, disable_by_batch_size: 1 };
    let guessing = SchedulerConfig { speculative: Some(ngram), ..config() };
    assert_eq!(run(guessing.clone(), vec![request(9, 40)]).steps_ahead, 0, "guesses need known tokens");
    assert!(run(guessing, vec![request(9, 40), request(6, 40)]).steps_ahead > 30, "larger steps have none");
}

#[test]
fn a_pending_token_is_a_chunk_that_is_not_delivered() {
    let stream = |seed| Request {
        seed,
        streamed: true,
        link: Some(Link { bytes_per_s: 4_000.0, stall: 0..0, health: steady(1.0), measured: true }),
        ..request(8, 60)
    };
    for pacing in [Pacing::Off, Pacing::PerConnection] {
        let config = SchedulerConfig { pacing, ..config() };
        let most = |config: SchedulerConfig| {
            let mut most = 0.0f64;
            let scenario = Scenario { config, factor: steady(1.0), requests: vec![stream(0), stream(1)] };
            let outcome = simulate(&scenario, |_, _, network| {
                most = network.links.values().map(|(_, undelivered)| *undelivered).fold(most, f64::max);
            });
            check_outcome(&scenario, &outcome);
            most
        };
        let (alone, ahead) = (most(one_by_one(config.clone())), most(config));
        assert!(ahead <= alone + f64::from(CHUNK_BYTES) / 2.0, "{ahead} bytes wait, {alone} without asynchrony");
    }
}

#[test]
fn rates_are_kept_with_tokens_in_flight() {
    let stream = |seed| Request { seed, streamed: true, tenant: Some("t"), ..request(8, 31) };
    let capped = SchedulerConfig { stream_rate_cap: Some(10.0), ..config() };
    let span = |outcome: &Outcome| (outcome.token_times[&0][30] - outcome.token_times[&0][1]).as_secs_f64();
    let outcome = run(capped, vec![stream(0)]);
    assert!((span(&outcome) - 2.9).abs() < 0.01, "29 tokens in {} s", span(&outcome));
    let tenant = Cap { max_seqs: None, max_rate: Some(20.0) };
    let shared = SchedulerConfig { caps: Caps { tenant, ..Caps::default() }, ..config() };
    let outcome = run(shared, vec![stream(0), stream(1)]);
    assert!((span(&outcome) - 2.9).abs() < 0.2, "29 tokens in {} s", span(&outcome));
}

#[test]
fn a_failed_step_takes_its_sequences_and_what_was_issued_after_it_is_computed_again() {
    let config = SchedulerConfig { max_num_seqs: 2, ..config() };
    let (mut scheduler, mut executor, network, first) = started(&config, vec![request(8, 1), request(8, 5), request(8, 5)]);
    let second = scheduler.plan(Duration::ZERO, &network).unwrap();
    assert_eq!(second.sequences.iter().map(|s| s.id.0).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(scheduler.fail_step(first.step), [SequenceId(1), SequenceId(0)]);
    assert_eq!(scheduler.check_invariants(), Ok(()));
    assert_eq!((scheduler.stats().waiting, scheduler.stats().kv_blocks_used), (1, 0));
    let third = scheduler.plan(Duration::ZERO, &network).unwrap();
    assert_eq!((third.sequences[0].id, third.sequences[0].start, third.sequences[0].pending), (SequenceId(2), 0, None));
    let output = executor.execute(&third);
    assert_eq!(scheduler.apply(&third, output, Duration::ZERO).len(), 1);
}

#[test]
fn a_step_that_cannot_be_issued_leaves_the_one_before_it() {
    let config = SchedulerConfig { max_num_seqs: 2, ..config() };
    let (mut scheduler, mut executor, network, first) = started(&config, vec![request(8, 1), request(8, 5), request(8, 5)]);
    let second = scheduler.plan(Duration::ZERO, &network).unwrap();
    assert_eq!(scheduler.fail_step(second.step), [SequenceId(1), SequenceId(2)]);
    let output = executor.execute(&first);
    let updates = scheduler.apply(&first, output, Duration::ZERO);
    assert_eq!(updates.iter().map(|update| update.id.0).collect::<Vec<_>>(), [0]);
    assert!(scheduler.is_empty() && scheduler.stats().kv_blocks_used == 0);
}

#[test]
fn who_goes_with_two_steps_in_flight_frees_its_blocks_and_has_no_further_token() {
    let (mut scheduler, mut executor, network, first) = started(&config(), vec![request(8, 9), request(5, 9)]);
    let second = scheduler.plan(Duration::ZERO, &network).unwrap();
    assert!(scheduler.cancel(SequenceId(0)) && !scheduler.cancel(SequenceId(0)));
    let outputs = [&first, &second].map(|plan| executor.execute(plan));
    for (plan, output) in [&first, &second].into_iter().zip(outputs) {
        let updates = scheduler.apply(plan, output, Duration::ZERO);
        assert_eq!(updates.iter().map(|update| update.id.0).collect::<Vec<_>>(), [1]);
        assert_eq!((scheduler.check_invariants(), scheduler.stats().running), (Ok(()), 1));
    }
}
