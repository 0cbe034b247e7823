//! What one tenant or one connection may take: excess waits, holds up nobody else, and is shared evenly.

use std::time::Duration;

use tokenflow_engine::scheduler::{Cap, Caps, SchedulerConfig};

use crate::simulation::{Outcome, Request, Scenario, VOCAB, check_outcome, simulate, steady};

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
