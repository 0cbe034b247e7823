//! Blocks that give way go to host memory and come back: what is saved, when, and when it is not worth it.

use std::time::Duration;

use tokenflow_engine::scheduler::{OFFLOAD_AFTER, Scheduler, SchedulerConfig, SequenceId, pacing::PARK_AFTER};

use crate::simulation::{FakeExecutor, FakeNetwork, Link, Outcome, Request, Scenario, VOCAB, check_outcome, simulate, steady};

fn config() -> SchedulerConfig {
    SchedulerConfig {
        max_num_batched_tokens: 64,
        max_num_seqs: 8,
        block_size: 4,
        num_blocks: 16,
        num_host_blocks: 64,
        max_model_len: 1000,
        ..SchedulerConfig::default()
    }
}

fn request(salt: &'static str, prompt_tokens: u32, max_tokens: usize) -> Request {
    let prompt = (0..prompt_tokens).map(|t| t * 7 % VOCAB as u32).collect();
    Request { prompt, max_tokens, salt: Some(salt), ..Request::default() }
}

/// One whose reader does not read for so long.
fn stalled(salt: &'static str, prompt_tokens: u32, stall_ms: u64) -> Request {
    let link = Link { bytes_per_s: 4_000.0, stall: 0..stall_ms, health: steady(1.0), measured: true };
    Request { streamed: true, link: Some(link), ..request(salt, prompt_tokens, 20) }
}

fn run(config: SchedulerConfig, requests: Vec<Request>) -> Outcome {
    let scenario = Scenario { config, factor: steady(1.0), requests };
    let outcome = simulate(&scenario, |_, _, _| ());
    check_outcome(&scenario, &outcome);
    outcome
}

#[test]
fn what_was_copied_is_not_computed_again() {
    let requests = || vec![request("a", 24, 20), request("b", 24, 20)];
    let with = |num_host_blocks| run(SchedulerConfig { num_host_blocks, enable_prefix_caching: false, ..config() }, requests());
    let (without, host) = (with(0), with(64));
    assert_eq!(host.preemptions, without.preemptions);
    assert!(host.preemptions[&1] > 0);
    assert_eq!(host.computed_tokens, 2 * (24 + 19), "every token once");
    assert!(without.computed_tokens > host.computed_tokens + 20);
    assert!(host.onloaded > 0 && host.offloaded == host.onloaded);
}

#[test]
fn a_full_host_pool_is_no_worse_than_none() {
    let requests = || vec![request("a", 24, 20), request("b", 24, 20)];
    let outcome = run(SchedulerConfig { num_host_blocks: 1, ..config() }, requests());
    assert_eq!((outcome.offloaded, outcome.preemptions[&1] > 0), (0, true));
}

#[test]
fn copies_that_take_longer_than_computing_are_not_made() {
    let requests = || vec![request("a", 24, 20), request("b", 24, 20)];
    let with = |block_copy_time| run(SchedulerConfig { block_copy_time, ..config() }, requests()).offloaded;
    // A block's four tokens take at least 400 us to compute.
    assert!(with(Duration::from_micros(100)) > 0);
    assert_eq!(with(Duration::from_millis(50)), 0);
}

#[test]
fn a_parked_streams_blocks_go_when_others_need_them_or_after_a_while() {
    let needed = run(config(), vec![stalled("a", 24, 20_000), Request { arrival_ms: 3_000, ..request("b", 40, 10) }]);
    assert_eq!((needed.offloaded_at, needed.preemptions[&0]), (Some(Duration::from_secs(3)), 1));
    assert!(needed.token_times[&1][0] < Duration::from_millis(3_100));
    assert_eq!(needed.computed_tokens, 24 + 19 + 40 + 9, "nothing is computed twice");

    let alone = run(config(), vec![stalled("a", 24, 20_000)]);
    let at = alone.offloaded_at.expect("it was offloaded although nobody needed its blocks");
    let due = PARK_AFTER + OFFLOAD_AFTER;
    assert!(at >= due && at < due + Duration::from_millis(100), "{at:?}");
    assert_eq!((alone.computed_tokens, alone.preemptions[&0]), (24 + 19, 0), "parking is no preemption");

    let soon = run(config(), vec![stalled("a", 24, 9_000)]);
    assert_eq!(soon.offloaded, 0, "it came back before");
}

#[test]
fn blocks_that_another_uses_stay_and_are_found_again() {
    let on_shared = |max_tokens| request("both", 24, max_tokens);
    let link = Link { bytes_per_s: 4_000.0, stall: 0..20_000, health: steady(1.0), measured: true };
    let parked = Request { arrival_ms: 20, streamed: true, link: Some(link), seed: 1, ..on_shared(20) };
    // The first holds the shared prompt for as long as the other is away.
    let holder = Request { link: Some(Link { bytes_per_s: 1e9, stall: 20..21, health: steady(1.0), measured: true }), ..on_shared(30_000) };
    let config = SchedulerConfig { num_blocks: 9_000, num_host_blocks: 64, max_model_len: 31_000, ..config() };
    let outcome = run(config, vec![holder, parked]);
    assert_eq!(outcome.cached_tokens[&1], 20);
    assert!((1..=2).contains(&outcome.offloaded), "{} blocks beyond the five that are shared", outcome.offloaded);
    assert!((1..=outcome.offloaded).contains(&outcome.onloaded), "what is still on the device is not copied: {}", outcome.onloaded);
}

#[test]
fn copies_of_a_step_that_failed_are_not_relied_on() {
    let config = SchedulerConfig { max_waiting: Some(3), ..config() };
    let scenario = Scenario { config, factor: steady(1.0), requests: vec![request("a", 24, 20), request("b", 24, 20)] };
    let mut scheduler = Scheduler::new(scenario.config.clone());
    let (mut executor, network) = (FakeExecutor::new(&scenario.config), FakeNetwork::new(steady(1.0)));
    (0..2).for_each(|i| scheduler.add(scenario.sequence(i)).unwrap());
    let mut now = Duration::ZERO;
    let failed = loop {
        now += Duration::from_millis(1);
        let plan = scheduler.plan(now, &network).unwrap();
        if !plan.offload.is_empty() {
            break plan;
        }
        scheduler.apply(&plan, executor.execute(&plan), now);
    };
    assert_eq!((scheduler.stats().offloaded, scheduler.stats().host_blocks_used > 0), (1, true));
    assert_eq!(scheduler.room_to_wait(), 3, "who has run before has been let in, but nobody gets its seat");
    assert_eq!(scheduler.fail_step(failed.step), [SequenceId(0)]);
    scheduler.check_invariants().unwrap();
    assert_eq!((scheduler.stats().offloaded, scheduler.stats().host_blocks_used), (0, 0));
    let plan = scheduler.plan(now, &network).unwrap();
    assert_eq!((plan.sequences[0].id, plan.onload.len()), (SequenceId(1), 0));
}

#[test]
fn streams_with_a_common_prefix_that_come_back_together_keep_their_copies() {
    let both = |arrival_ms| Request { arrival_ms, seed: arrival_ms, ..stalled("both", 24, 20_000) };
    // Another takes the blocks of both while they are away.
    let other = Request { arrival_ms: 5_000, ..request("other", 60, 34) };
    let outcome = run(SchedulerConfig { num_blocks: 24, ..config() }, vec![both(0), both(20), other]);
    assert_eq!(outcome.cached_tokens[&1], 20);
    assert_eq!([0, 1].map(|i| outcome.preemptions[&i]), [1, 1], "both were away");
    assert_eq!(outcome.computed_tokens, (24 + 19) + (4 + 19) + (60 + 33), "nothing is computed twice");
}
