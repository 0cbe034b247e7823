//! What one tenant or one connection may take: excess waits, holds up nobody else, and is shared evenly.

use std::time::Duration;

use tokenflow_engine::scheduler::{Cap, Caps, PASSED_OVER_AT_MOST, Scheduler, SchedulerConfig};

use crate::simulation::{FakeExecutor, FakeNetwork, Link, Outcome, Request, Scenario, VOCAB, check_outcome, simulate, steady};

fn config(caps: Caps) -> SchedulerConfig {
    SchedulerConfig {
        max_num_batched_tokens: 64,
        max_num_seqs: 8,
        block_size: 4,
        num_blocks: 400,
        max_model_len: 1000,
        caps,
        ..SchedulerConfig::default()
    }
}

fn request(tenant: &'static str, max_tokens: usize) -> Request {
    let prompt = (0..8).map(|t| t * 3 % VOCAB as u32).collect();
    Request { prompt, max_tokens, tenant: Some(tenant), ..Request::default() }
}

fn run(config: SchedulerConfig, requests: Vec<Request>) -> Outcome {
    let scenario = Scenario { config, factor: steady(1.0), requests };
    let outcome = simulate(&scenario, |_, _, _| ());
    check_outcome(&scenario, &outcome);
    outcome
}

fn tenants(max_seqs: Option<usize>, max_rate: Option<f64>) -> Caps {
    Caps { tenant: Cap { max_seqs, max_rate }, ..Caps::default() }
}

#[test]
fn who_has_its_seats_holds_up_nobody_else() {
    let mut requests = vec![request("greedy", 40); 6];
    requests.push(Request { arrival_ms: 1, ..request("modest", 5) });
    let outcome = run(config(tenants(Some(2), None)), requests);
    let first = |i: u64| outcome.token_times[&i][0];
    assert!(first(6) < Duration::from_millis(10), "{:?}", first(6));
    assert!(first(2) >= *outcome.token_times[&0].last().unwrap(), "the third of the greedy waits for the first");
    assert!((3..6).all(|i| first(i) >= first(i - 1)), "in turn");
}

#[test]
fn a_slow_stream_is_not_passed_over_for_ever_by_its_own_tenant() {
    let link = Link { bytes_per_s: 4_000.0, stall: 0..0, health: steady(1.0), measured: true };
    let mut requests = vec![request("t", 40), Request { arrival_ms: 1, streamed: true, link: Some(link), ..request("t", 5) }];
    // A new one always waits when another ends.
    requests.extend((0..400).map(|i| Request { arrival_ms: 2 + i * 10, ..request("t", 40) }));
    let outcome = run(config(tenants(Some(1), None)), requests);
    let first = outcome.token_times[&1][0];
    assert!(first < PASSED_OVER_AT_MOST + Duration::from_millis(200), "{first:?}");
}

#[test]
fn streams_share_their_tenants_rate_evenly() {
    let requests = vec![Request { streamed: true, ..request("t", 30) }, request("t", 30), request("t", 30), request("other", 300)];
    let outcome = run(config(tenants(None, Some(30.0))), requests);
    let ends: Vec<f64> = (0..3).map(|i| outcome.token_times[&i].last().unwrap().as_secs_f64()).collect();
    assert!(ends.iter().all(|end| (2.8..3.05).contains(end)), "90 tokens at 30 a second: {ends:?}");
    let at_half = |i: u64| outcome.token_times[&i].iter().filter(|time| time.as_secs_f64() < 1.5).count();
    assert!((0..3).all(|i| (14..=18).contains(&at_half(i))), "{:?}", [at_half(0), at_half(1), at_half(2)]);
    let alone = run(config(Caps::default()), vec![request("other", 300)]);
    let end = |outcome: &Outcome, i| outcome.token_times[&i].last().unwrap().as_secs_f64();
    assert!(end(&outcome, 3) > 9.8, "the cap is every tenant's: 300 tokens at 30 a second");
    assert!(end(&alone, 0) < 1.0);
}

#[test]
fn a_flood_of_short_requests_keeps_to_the_rate() {
    let outcome = run(config(tenants(None, Some(50.0))), vec![request("t", 1); 100]);
    let last = outcome.token_times.values().map(|times| times[0].as_secs_f64()).fold(0.0, f64::max);
    assert!((1.85..2.0).contains(&last), "100 tokens at 50 a second: {last} s");
}

#[test]
fn a_connection_has_its_own_caps() {
    let caps = Caps { connection: Cap { max_seqs: Some(1), max_rate: Some(100.0) }, ..Caps::default() };
    let on = |connection, max_tokens| Request { connection, ..request("t", max_tokens) };
    let outcome = run(config(caps), vec![on(Some(1), 50), on(Some(1), 50), on(Some(2), 50), on(None, 50)]);
    let (first, end) = (|i: u64| outcome.token_times[&i][0], |i: u64| *outcome.token_times[&i].last().unwrap());
    assert!(first(1) >= end(0) && first(2) < end(0));
    assert!(end(3) < Duration::from_millis(100), "a connection that is not known has no cap");
    assert!((0.35..0.5).contains(&end(2).as_secs_f64()), "{:?}", end(2));
}

#[test]
fn who_comes_later_has_its_turn() {
    let requests = vec![request("t", 300), request("t", 300), Request { arrival_ms: 1_000, ..request("t", 20) }];
    let outcome = run(config(tenants(None, Some(30.0))), requests);
    let times = &outcome.token_times[&2];
    assert!(times[0] < Duration::from_millis(1_150), "{:?}: two had their turn before", times[0]);
    assert!((2.7..3.2).contains(&times[19].as_secs_f64()), "a third of 30 tokens a second: {:?}", times[19]);
    let flood = (0..20).map(|i| Request { arrival_ms: 1_000 + i, ..request("t", 1) });
    let outcome = run(config(tenants(None, Some(30.0))), [request("t", 60)].into_iter().chain(flood).collect());
    let among = outcome.token_times[&0].iter().filter(|time| (1.0..2.0).contains(&time.as_secs_f64())).count();
    assert!((8..22).contains(&among), "those that come take turns with the one that runs: {among}");
}

#[test]
fn an_offloaded_stream_comes_back_beside_a_busy_one_of_its_tenant() {
    let link = Link { bytes_per_s: 4_000.0, stall: 0..12_000, health: steady(1.0), measured: true };
    let away = Request { streamed: true, link: Some(link), ..request("t", 100) };
    let config = SchedulerConfig { num_host_blocks: 400, ..config(tenants(None, Some(60.0))) };
    let outcome = run(config, vec![away, request("t", 900)]);
    assert!(outcome.offloaded > 0 && outcome.onloaded > 0);
    let back = outcome.token_times[&0].iter().find(|time| time.as_secs_f64() > 12.0).unwrap();
    assert!(*back < Duration::from_millis(12_300), "{back:?}");
    assert!(*outcome.token_times[&1].last().unwrap() > Duration::from_secs(14), "the other was busy");
}

#[test]
fn a_parked_stream_gives_its_place_to_its_owners_next() {
    let link = Link { bytes_per_s: 4_000.0, stall: 0..20_000, health: steady(1.0), measured: true };
    let parked = Request { streamed: true, link: Some(link), ..request("t", 40) };
    let next = |arrival_ms| Request { arrival_ms, ..request("t", 10) };
    let outcome = run(config(tenants(Some(1), None)), vec![parked, next(1_000), next(5_000)]);
    let first = |i: u64| outcome.token_times[&i][0].as_secs_f64();
    assert!((1.99..2.2).contains(&first(1)), "as soon as the stream is parked: {}", first(1));
    assert!(first(2) < 5.1, "{}", first(2));
    assert_eq!(outcome.preemptions[&0], 1);
}

#[test]
fn a_capped_owner_fills_its_own_queue_and_nobody_elses() {
    let config = SchedulerConfig { max_num_seqs: 4, max_waiting: Some(2), ..config(tenants(Some(1), None)) };
    let requests = vec![request("greedy", 9), request("greedy", 9), request("greedy", 9), request("other", 9), request("other", 9)];
    let scenario = Scenario { config: config.clone(), factor: steady(1.0), requests };
    let mut scheduler = Scheduler::new(config.clone());
    let full = |scheduler: &Scheduler| scheduler.queues().1.tenants.into_iter().flatten().map(|t| t.to_string()).collect::<Vec<_>>();
    (0..2).for_each(|i| scheduler.add(scenario.sequence(i)).unwrap());
    let network = FakeNetwork::new(steady(1.0));
    let plan = scheduler.plan(Duration::ZERO, &network).unwrap();
    assert_eq!((scheduler.room_to_wait(), full(&scheduler).len()), (2 + 3, 0), "one runs, one waits for it");
    scheduler.add(scenario.sequence(2)).unwrap();
    assert_eq!((scheduler.room_to_wait(), full(&scheduler)), (2 + 3, vec!["greedy".to_owned()]));
    scheduler.add(scenario.sequence(3)).unwrap();
    assert_eq!(scheduler.room_to_wait(), 2 + 2, "another's takes room until it starts");
    let output = FakeExecutor::new(&config).execute(&plan);
    scheduler.apply(&plan, output, Duration::from_millis(1));
    scheduler.plan(Duration::from_millis(1), &network).unwrap();
    let stats = scheduler.stats();
    assert_eq!((stats.running, stats.tenant_capped, scheduler.room_to_wait()), (2, 2, 2 + 2));
}

#[test]
fn only_those_that_wait_to_start_count_as_capped() {
    let requests = vec![request("t", 30), Request { arrival_ms: 100, ..request("t", 10) }];
    let scenario = Scenario { config: config(tenants(Some(1), Some(30.0))), factor: steady(1.0), requests };
    let mut most = 0;
    let outcome = simulate(&scenario, |scheduler, _, _| most = most.max(scheduler.stats().tenant_capped));
    check_outcome(&scenario, &outcome);
    assert_eq!(most, 1);
    let alone = Scenario { requests: vec![request("t", 30)], ..scenario };
    simulate(&alone, |scheduler, _, _| assert_eq!(scheduler.stats().tenant_capped, 0, "it runs, between two tokens"));
}
