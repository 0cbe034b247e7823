//! Seats go to those who can use them: streams that sit most steps out leave theirs, and links that carry little wait, but not for ever.

use std::time::Duration;

use proptest::prelude::*;
use tokenflow_engine::scheduler::{PASSED_OVER_AT_MOST, Pacing, SchedulerConfig, SchedulingPolicy};

use crate::simulation::{Link, Outcome, Request, Scenario, VOCAB, check_outcome, simulate, steady};

fn config(max_num_seqs: usize) -> SchedulerConfig {
    SchedulerConfig {
        max_num_batched_tokens: 64,
        max_num_seqs,
        block_size: 4,
        num_blocks: 4000,
        max_model_len: 4000,
        ..SchedulerConfig::default()
    }
}

fn healthy(arrival_ms: u64, max_tokens: usize) -> Request {
    let prompt = (0..8).map(|t| t * 3 % VOCAB as u32).collect();
    Request { prompt, max_tokens, streamed: true, arrival_ms, ..Request::default() }
}

/// By a link that carries 20 tokens a second, where the engine makes about 1,600.
fn slow(arrival_ms: u64, max_tokens: usize) -> Request {
    let link = Link { bytes_per_s: 4_000.0, stall: 0..0, health: steady(1.0), measured: true };
    Request { link: Some(link), ..healthy(arrival_ms, max_tokens) }
}

fn run(config: SchedulerConfig, requests: Vec<Request>) -> Outcome {
    let scenario = Scenario { config, factor: steady(1.0), requests };
    let outcome = simulate(&scenario, |_, _, _| ());
    check_outcome(&scenario, &outcome);
    outcome
}

#[test]
fn a_trickling_stream_keeps_no_seat_from_those_who_wait() {
    let outcome = run(config(1), vec![slow(0, 200), healthy(10, 50)]);
    let first = outcome.token_times[&1][0];
    assert!(first < Duration::from_secs(1), "{first:?}");
    assert_eq!(outcome.preemptions[&0], 0, "and keeps its blocks");
    let off = run(SchedulerConfig { pacing: Pacing::Off, ..config(1) }, vec![slow(0, 200), healthy(10, 50)]);
    assert!(off.token_times[&1][0] > *off.token_times[&0].last().unwrap(), "without pacing it takes its turn");
}

#[test]
fn many_slow_streams_fit_where_few_fast_ones_do() {
    let mut requests = vec![healthy(0, 20)];
    requests.extend((0..40).map(|i| slow(100 + i * 20, 60)));
    let outcome = run(config(4), requests);
    let end = outcome.token_times.values().map(|times| *times.last().unwrap()).max().unwrap();
    // One after the other, in four seats, they would take thirty seconds.
    assert!(end < Duration::from_secs(6), "{end:?}");
}

#[test]
fn a_seat_goes_first_to_whom_it_helps() {
    // The first runs for a while with the only seat, and both others come meanwhile.
    let outcome = run(config(1), vec![healthy(0, 300), slow(50, 10), healthy(60, 300)]);
    let first = |i: u64| outcome.token_times[&i][0];
    assert!(first(2) < first(1), "{:?} and {:?}", first(2), first(1));
    let off = run(SchedulerConfig { pacing: Pacing::Off, ..config(1) }, vec![healthy(0, 300), slow(50, 10), healthy(60, 300)]);
    assert!(off.token_times[&1][0] < off.token_times[&2][0]);
}

#[test]
fn recovered_streams_share_the_places_of_a_step_by_rank() {
    // Both links stand still for a while, another stream is let in, and then all three want to run.
    let link = || Link { bytes_per_s: 1e9, stall: 0..2_000, health: steady(1.0), measured: false };
    let away = || Request { link: Some(link()), ..healthy(0, 3_000) };
    let outcome = run(config(2), vec![away(), away(), healthy(10, 3_900)]);
    let last = |i: u64| *outcome.token_times[&i].last().unwrap();
    assert!(outcome.token_times[&2][0] < Duration::from_secs(2));
    assert!(last(0) < last(2) && last(1) < last(2));
}

#[test]
fn a_prompt_keeps_its_place_among_recovered_streams() {
    let roomy = SchedulerConfig { num_blocks: 12_000, max_model_len: 30_000, ..config(2) };
    let config = SchedulerConfig { max_num_batched_tokens: 16, long_prefill_token_threshold: 8, ..roomy };
    let prompt = (0..24_000).map(|t| t * 3 % VOCAB as u32).collect();
    let giant = Request { prompt, streamed: false, max_tokens: 2, ..healthy(0, 2) };
    // The second's link stands still for long enough to let a third in, and then all want to run.
    let link = Link { bytes_per_s: 1e9, stall: 0..2_000, health: steady(1.0), measured: false };
    let outcome = run(config, vec![giant, Request { link: Some(link), ..healthy(0, 5_000) }, healthy(1_600, 5_000)]);
    let (first, end) = (|i: u64| outcome.token_times[&i][0], |i: u64| *outcome.token_times[&i].last().unwrap());
    assert!(first(2) < Duration::from_millis(1_900), "{:?}", first(2));
    assert!(first(0) < end(1) && first(0) < end(2), "{:?}, the others end at {:?} and {:?}", first(0), end(1), end(2));
}

#[test]
fn a_seat_is_taken_from_one_who_has_it() {
    let config = SchedulerConfig { policy: SchedulingPolicy::Priority, ..config(1) };
    let link = || Link { bytes_per_s: 4_000.0, stall: 0..9_000, health: steady(1.0), measured: true };
    let parked = |arrival_ms| Request { priority: 5, link: Some(link()), ..healthy(arrival_ms, 40) };
    let runs = Request { priority: 1, ..healthy(3_000, 3_000) };
    let outcome = run(config, vec![parked(0), parked(1_500), runs, healthy(4_500, 10)]);
    assert!(outcome.token_times[&3][0] < Duration::from_millis(4_600));
    assert_eq!([0, 1, 2].map(|i| outcome.preemptions[&i]), [0, 0, 1], "the parked have hardly a seat to give");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// However many healthy requests keep coming, one by a slow link starts at most the bound later than it would without pacing.
    #[test]
    fn nobody_is_passed_over_for_ever(
        max_num_seqs in 1..4usize, output in 5..80usize, every_ms in 1..20u64, slow_output in 1..10usize, count in 100..200usize,
    ) {
        let requests = |count: usize| {
            let mut requests: Vec<Request> = (0..count as u64).map(|i| healthy(i * every_ms, output)).collect();
            requests.push(slow(every_ms * 5 + 1, slow_output));
            requests
        };
        let requests = requests(count);
        let first = |pacing| {
            let outcome = run(SchedulerConfig { pacing, ..config(max_num_seqs) }, requests.clone());
            outcome.token_times[&(count as u64)][0]
        };
        let (off, paced) = (first(Pacing::Off), first(Pacing::PerConnection));
        // It is the first of those that wait once the bound has passed; then one of those that run has to end.
        let one = Duration::from_micros(output as u64 * 1_000 * max_num_seqs as u64 + 5_000);
        prop_assert!(paced <= off.max(Duration::from_millis(every_ms * 5 + 1)) + PASSED_OVER_AT_MOST + one, "{paced:?}, without pacing {off:?}");
    }
}
