//! One situation each: who runs, who gives way and who sits out.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use tokenflow_engine::scheduler::{
    AddError, Expired, ExpiryCause, FinishReason, NewSequence, Pacing, Scheduler, SchedulerConfig, SequenceId,
    pacing::{LOOK_AGAIN_AFTER, MAX_UNDELIVERED_BYTES, MIN_STEP_BUDGET},
};

use crate::simulation::{CHUNK_BYTES, FakeExecutor, FakeNetwork, Link, Request, Scenario, VOCAB, check_outcome, simulate, steady};

fn small_config() -> SchedulerConfig {
    SchedulerConfig {
        max_num_batched_tokens: 64,
        max_num_seqs: 8,
        block_size: 4,
        num_blocks: 64,
        max_model_len: 1000,
        pacing: Pacing::PerConnection,
        max_waiting: None,
        ..SchedulerConfig::default()
    }
}

fn plain_request(prompt_tokens: u32, max_tokens: usize) -> Request {
    let prompt = (0..prompt_tokens).map(|t| t % VOCAB as u32).collect();
    Request { prompt, max_tokens, stops: false, streamed: true, ..Request::default() }
}

fn slow_link(bytes_per_s: f64) -> Option<Link> {
    Some(Link { bytes_per_s, stall: 0..0, health: steady(1.0), measured: true })
}

#[test]
fn scarce_blocks_are_preempted_and_recomputed() {
    let scenario = Scenario {
        config: SchedulerConfig { num_blocks: 12, ..small_config() },
        factor: steady(1.0),
        requests: vec![plain_request(8, 30); 4],
    };
    let outcome = simulate(&scenario, |_, _, _| ());
    check_outcome(&scenario, &outcome);
    assert_eq!(outcome.preemptions[&0], 0, "the first to come goes on");
    assert!(outcome.preemptions[&3] > 0, "the last to come gives way");
}

#[test]
fn what_a_preemption_frees_is_not_for_those_behind() {
    let mut newcomer = plain_request(1, 1);
    newcomer.arrival_ms = 1;
    let config = SchedulerConfig { num_blocks: 8, max_num_seqs: 2, ..small_config() };
    let scenario = Scenario { config, factor: steady(1.0), requests: vec![plain_request(8, 20), plain_request(20, 10), newcomer] };
    let outcome = simulate(&scenario, |_, _, _| ());
    check_outcome(&scenario, &outcome);
    assert_eq!(outcome.preemptions[&1], 1);
    assert!(outcome.token_times[&2][0] > *outcome.token_times[&0].last().unwrap());
}

#[test]
fn a_sequence_that_fills_the_pool_alone_ends_by_length() {
    let scenario = Scenario {
        config: SchedulerConfig { num_blocks: 4, ..small_config() },
        factor: steady(1.0),
        requests: vec![plain_request(10, 100)],
    };
    let outcome = simulate(&scenario, |_, _, _| ());
    assert_eq!(outcome.outputs[&0].0.len(), 7);
    assert_eq!(outcome.outputs[&0].1, Some(FinishReason::Length));
}

#[test]
fn a_narrow_link_sets_its_own_pace_and_nobody_elses() {
    let mut slow = plain_request(8, 60);
    slow.link = slow_link(4_000.0);
    let mut fast = plain_request(8, 200);
    fast.link = slow_link(1e9);
    let scenario = Scenario { config: small_config(), factor: steady(1.0), requests: vec![slow, fast] };
    let outcome = simulate(&scenario, |_, _, network| {
        if let Some((_, undelivered)) = network.links.get(&SequenceId(0)) {
            assert!(*undelivered <= 1_100.0 + f64::from(CHUNK_BYTES), "{undelivered} bytes wait, the window is 1040");
        }
    });
    check_outcome(&scenario, &outcome);
    // The window's first few go at once; from then on 4,000 bytes a second carry 20 chunks of 200 bytes.
    let rate = |i: u64| {
        let times = &outcome.token_times[&i][10..];
        (times.len() - 1) as f64 / (times[times.len() - 1] - times[0]).as_secs_f64()
    };
    assert!((19.5..20.5).contains(&rate(0)), "{} tokens/s", rate(0));
    assert!(rate(1) > 1000.0, "{} tokens/s", rate(1));
}

#[test]
fn a_stalled_reader_keeps_neither_seat_nor_blocks_from_those_who_wait() {
    let mut stalled = plain_request(8, 60);
    stalled.link = Some(Link { stall: 0..60_000, ..slow_link(4_000.0).unwrap() });
    let mut waiting = plain_request(8, 5);
    waiting.arrival_ms = 100;
    let config = SchedulerConfig { max_num_seqs: 1, ..small_config() };
    let scenario = Scenario { config, factor: steady(1.0), requests: vec![stalled, waiting] };
    let outcome = simulate(&scenario, |_, _, _| ());
    check_outcome(&scenario, &outcome);
    let served = outcome.token_times[&1][0];
    assert!((0.5..1.0).contains(&served.as_secs_f64()), "served at {served:?}");
}

#[test]
fn paced_sequences_are_preempted_before_later_ones_that_run() {
    let mut stalled = plain_request(16, 60);
    stalled.link = Some(Link { stall: 0..1_000, ..slow_link(4_000.0).unwrap() });
    let config = SchedulerConfig { num_blocks: 16, ..small_config() };
    let scenario = Scenario { config, factor: steady(1.0), requests: vec![stalled, plain_request(8, 50)] };
    let outcome = simulate(&scenario, |_, _, _| ());
    check_outcome(&scenario, &outcome);
    assert_eq!(outcome.preemptions, BTreeMap::from([(0, 1), (1, 0)]));
    assert!(outcome.token_times[&1].last() < Some(&Duration::from_millis(500)), "the healthy one ran through");
}

#[test]
fn every_mode_bounds_what_a_reader_who_never_reads_can_hold() {
    for pacing in [Pacing::Off, Pacing::Global] {
        let mut request = plain_request(8, 6_000);
        request.link = Some(Link { bytes_per_s: 1e9, stall: 0..60_000, health: steady(1.0), measured: false });
        let config = SchedulerConfig { pacing, num_blocks: 4_000, max_model_len: 10_000, ..small_config() };
        let scenario = Scenario { config, factor: steady(1.0), requests: vec![request] };
        let outcome = simulate(&scenario, |_, _, network| {
            if let Some((_, undelivered)) = network.links.get(&SequenceId(0)) {
                assert!(*undelivered < MAX_UNDELIVERED_BYTES as f64 + f64::from(CHUNK_BYTES));
            }
        });
        assert!(outcome.token_times[&0].last() > Some(&Duration::from_secs(60)), "it waited for its reader");
    }
}

#[test]
fn work_that_is_not_streamed_is_never_paced() {
    let mut request = plain_request(8, 60);
    request.streamed = false;
    request.link = Some(Link { bytes_per_s: 1.0, stall: 0..0, health: steady(0.0), measured: true });
    let config = SchedulerConfig { stream_rate_cap: Some(1.0), ..small_config() };
    let outcome = simulate(&Scenario { config, factor: steady(1.0), requests: vec![request] }, |_, _, _| ());
    assert_eq!((outcome.paced_steps, outcome.steps), (0, 60));
}

#[test]
fn decodes_beyond_the_budget_take_turns() {
    let config = SchedulerConfig { max_num_seqs: 40, pacing: Pacing::Global, ..small_config() };
    let mut scheduler = Scheduler::new(config.clone());
    let mut executor = FakeExecutor::new(&config);
    let mut network = FakeNetwork::new(steady(1.0));
    let scenario = Scenario { config, factor: steady(1.0), requests: vec![plain_request(1, 50); 40] };
    for i in 0..40 {
        scheduler.add(scenario.sequence(i)).unwrap();
    }
    let mut step = |scheduler: &mut Scheduler, network: &FakeNetwork| {
        let plan = scheduler.plan(Duration::ZERO, network).unwrap();
        let output = executor.execute(&plan);
        scheduler.apply(&plan, output, Duration::ZERO)
    };
    assert_eq!(step(&mut scheduler, &network).len(), 40);
    network.factor = steady(0.0);
    let mut served = [0; 40];
    for _ in 0..5 {
        let updates = step(&mut scheduler, &network);
        assert_eq!(updates.len(), MIN_STEP_BUDGET);
        updates.iter().for_each(|u| served[u.id.0 as usize] += 1);
    }
    assert_eq!(served, [2; 40], "5 steps of 16 serve 40 sequences twice");
}

#[test]
fn a_bad_link_slows_its_own_prompt_and_leaves_the_budget_to_the_next() {
    let mut scheduler = Scheduler::new(SchedulerConfig { num_blocks: 256, ..small_config() });
    let mut bad = plain_request(200, 5);
    bad.link = Some(Link { health: steady(0.25), ..slow_link(1e6).unwrap() });
    let network =
        FakeNetwork { links: HashMap::from([(SequenceId(0), (bad.link.clone().unwrap(), 0.0))]), ..FakeNetwork::new(steady(1.0)) };
    let scenario = Scenario { config: small_config(), factor: steady(1.0), requests: vec![bad, plain_request(200, 5)] };
    scheduler.add(scenario.sequence(0)).unwrap();
    let mut alone = scheduler.clone();
    scheduler.add(scenario.sequence(1)).unwrap();

    let plan = scheduler.plan(Duration::ZERO, &network).unwrap();
    assert_eq!(plan.sequences.iter().map(|s| s.tokens.len()).collect::<Vec<_>>(), [16, 48]);
    assert_eq!(scheduler.stats().step_budget, 64);

    let plan = alone.plan(Duration::ZERO, &network).unwrap();
    assert_eq!(plan.num_tokens(), 16);
    assert_eq!(alone.stats().step_budget, 16, "what was withheld and nobody used is not in the budget");
}

#[test]
fn a_capped_stream_wakes_exactly_when_it_may_go_on() {
    let config = SchedulerConfig { stream_rate_cap: Some(10.0), ..small_config() };
    let outcome = simulate(&Scenario { config, factor: steady(1.0), requests: vec![plain_request(8, 31)] }, |_, _, _| ());
    let times = &outcome.token_times[&0];
    // Tolerance lets one go ahead; the rest follow at 10 a second.
    let span = (times[30] - times[1]).as_secs_f64();
    assert!((span - 2.9).abs() < 0.01, "29 tokens in {span} s");
}

#[test]
fn a_failed_step_drops_its_sequences_and_no_other() {
    let mut scheduler = Scheduler::new(SchedulerConfig { max_num_seqs: 2, ..small_config() });
    let network = FakeNetwork::new(steady(1.0));
    let scenario = Scenario { config: small_config(), factor: steady(1.0), requests: vec![plain_request(8, 5); 4] };
    for i in 0..4 {
        scheduler.add(scenario.sequence(i)).unwrap();
    }
    let plan = scheduler.plan(Duration::ZERO, &network).unwrap();
    assert_eq!(scheduler.plan(Duration::ZERO, &network), None, "one step at a time");
    assert!(scheduler.cancel(SequenceId(1)));
    assert_eq!(scheduler.fail_step(plan.step), [SequenceId(0)]);
    scheduler.check_invariants().unwrap();
    scheduler.plan(Duration::ZERO, &network).unwrap();
    assert_eq!(scheduler.abort_all(), [SequenceId(2), SequenceId(3)]);
    assert!(scheduler.is_empty());
    assert_eq!(scheduler.stats().kv_blocks_used, 0);
}

#[test]
fn what_could_never_run_is_refused_with_both_numbers() {
    let scenario = |prompt| Scenario { config: small_config(), factor: steady(1.0), requests: vec![plain_request(prompt, 5)] };
    let add = |config: SchedulerConfig, prompt| Scheduler::new(config).add(scenario(prompt).sequence(0));
    let message = |result: Result<(), AddError>| result.unwrap_err().to_string();
    assert_eq!(add(small_config(), 256), Ok(()));
    assert_eq!(message(add(small_config(), 257)), "the prompt has 257 tokens, but the whole KV cache holds 256");
    assert_eq!(
        message(add(SchedulerConfig { max_model_len: 100, ..small_config() }, 100)),
        "the prompt has 100 tokens, which leaves no room for output in the model's context of 100 tokens"
    );
    assert_eq!(message(add(small_config(), 0)), "the prompt is empty");
}

#[test]
fn a_full_queue_refuses_and_free_seats_do_not_count_as_queue() {
    let config = SchedulerConfig { max_num_seqs: 2, max_waiting: Some(1), ..small_config() };
    let scenario = Scenario { config: config.clone(), factor: steady(1.0), requests: vec![plain_request(8, 3); 5] };
    let mut scheduler = Scheduler::new(config.clone());
    assert_eq!(scheduler.room_to_wait(), 3);
    for i in 0..3 {
        scheduler.add(scenario.sequence(i)).unwrap();
    }
    assert_eq!(scheduler.room_to_wait(), 0);
    let plan = scheduler.plan(Duration::ZERO, &FakeNetwork::new(steady(1.0))).unwrap();
    assert_eq!((plan.sequences.len(), scheduler.room_to_wait()), (2, 0));
    assert!(scheduler.cancel(SequenceId(2)));
    assert_eq!(scheduler.room_to_wait(), 1);
}

#[test]
fn streams_that_wait_for_acknowledgements_are_looked_at_again_soon() {
    let mut scheduler = Scheduler::new(small_config());
    let mut request = plain_request(1, 5);
    request.link = slow_link(0.0);
    let network =
        FakeNetwork { links: HashMap::from([(SequenceId(0), (request.link.clone().unwrap(), 1e5))]), ..FakeNetwork::new(steady(1.0)) };
    scheduler.add(Scenario { config: small_config(), factor: steady(1.0), requests: vec![request] }.sequence(0)).unwrap();
    let now = Duration::from_secs(3);
    assert_eq!(scheduler.plan(now, &network), None);
    assert_eq!(scheduler.next_wakeup(now), Some(now + LOOK_AGAIN_AFTER));
    assert!(scheduler.is_paced(SequenceId(0)));
    assert_eq!(scheduler.stats().paced, 1);
}

#[test]
fn who_has_not_started_in_time_goes_and_who_has_stays() {
    let config = SchedulerConfig { max_num_seqs: 1, ..small_config() };
    let mut scheduler = Scheduler::new(config.clone());
    let scenario = Scenario { config, factor: steady(1.0), requests: vec![plain_request(8, 5); 2] };
    let start_by = Some(Duration::from_secs(1));
    for i in 0..2 {
        scheduler.add(NewSequence { start_by, deadline: Some(Duration::from_secs(3)), ..scenario.sequence(i) }).unwrap();
    }
    let network = FakeNetwork::new(steady(1.0));
    let plan = scheduler.plan(Duration::ZERO, &network).unwrap();
    assert_eq!(scheduler.expire(Duration::from_secs(9)), [], "not while a step is in flight");
    let output = FakeExecutor::new(&scenario.config).execute(&plan);
    scheduler.apply(&plan, output, Duration::ZERO);
    assert_eq!(scheduler.expire(Duration::from_millis(999)), []);
    assert_eq!(scheduler.next_deadline(), start_by);
    let expired = |id, cause, output_tokens| Expired { id: SequenceId(id), cause, output_tokens };
    assert_eq!(scheduler.expire(Duration::from_secs(1)), [expired(1, ExpiryCause::Queue, 0)]);
    assert_eq!(scheduler.expire(Duration::from_secs(3)), [expired(0, ExpiryCause::Deadline, 1)]);
    assert_eq!((scheduler.is_empty(), scheduler.stats().kv_blocks_used, scheduler.next_deadline()), (true, 0, None));
}
