//! The scheduler against a fake executor in virtual time: whatever it decides, outputs are what each sequence alone would get,
//! every sequence finishes and every block comes back.

mod ahead;
mod behaviour;
mod caps;
mod fairness;
mod offload;
mod seats;
mod sharing;
mod simulation;

use std::{collections::HashMap, time::Duration};

use proptest::prelude::*;
use simulation::{Link, Request, Scenario, Swing, VOCAB, check_outcome, simulate, simulate_failures};
use tokenflow_engine::scheduler::{Cap, Caps, MAX_STEPS_IN_FLIGHT, NgramConfig, Pacing, PacingLaw, SchedulerConfig, SchedulingPolicy};

fn swing() -> impl Strategy<Value = Swing> {
    ([0.0..=1.0f64, 0.0..=1.0f64], 1..300u64).prop_map(|(values, period_ms)| Swing { values, period_ms })
}

prop_compose! {
    fn link()(
        bytes_per_s in prop_oneof![1 => Just(1e9), 4 => 1_500.0..20_000.0f64],
        stall_start in 0..500u64, stall_ms in prop_oneof![Just(0), 0..4000u64],
        health in swing(), measured in prop::bool::weighted(0.8),
    ) -> Link {
        Link { bytes_per_s, stall: stall_start..stall_start + stall_ms, health, measured }
    }
}

prop_compose! {
    fn request()(
        prompt in prop::collection::vec(0..VOCAB as u32, 1..60), max_tokens in 1..90usize, stops in prop::bool::weighted(0.3), streamed in prop::bool::weighted(0.8),
        arrival_ms in 0..300u64, cancel_after_ms in prop::option::weighted(0.2, (0..400u64, any::<bool>())), link in prop::option::weighted(0.9, link()),
    ) -> Request {
        Request { prompt, max_tokens, stops, streamed, arrival_ms, cancel_after_ms, link, ..Request::default() }
    }
}

/// What a request shares with others, and what it may ask beside its text.
#[derive(Clone, Copy, Debug)]
struct Extras {
    /// It goes on where an earlier request ended, or asks the same.
    shares_prompt_of: Option<(usize, usize)>,
    /// As many further outputs for its prompt.
    forks: usize,
    seed: u64,
    priority: i64,
    salted: bool,
    timeout_ms: Option<u64>,
    tenant: Option<&'static str>,
    connection: Option<u64>,
    reads_history: bool,
}

prop_compose! {
    fn extras()(
        shares_prompt_of in prop::option::weighted(0.6, (0..16usize, 0..60usize)), forks in prop_oneof![3 => Just(0usize), 1 => 1..4usize],
        tenant in prop::option::weighted(0.7, prop::sample::select(vec!["a", "b"])), connection in prop::option::weighted(0.8, 1..4u64),
        seed in 0..3u64, priority in -2..3i64, salted in prop::bool::weighted(0.1), timeout_ms in prop::option::weighted(0.1, 0..500u64),
        reads_history in prop::bool::weighted(0.1),
    ) -> Extras {
        Extras { shares_prompt_of, forks, seed, priority, salted, timeout_ms, tenant, connection, reads_history }
    }
}

/// Requests as they are sent, each followed by its forks.
fn with_extras(requests: Vec<(Request, Extras)>) -> Vec<Request> {
    let mut all: Vec<Request> = Vec::new();
    for (mut request, extras) in requests {
        if let Some((other, keep)) = extras.shares_prompt_of.filter(|_| !all.is_empty()) {
            let other = &all[other % all.len()].prompt;
            request.prompt.splice(..0, other.iter().take(keep).copied());
        }
        (request.priority, request.timeout_ms) = (extras.priority, extras.timeout_ms);
        (request.tenant, request.connection) = (extras.tenant, extras.connection);
        request.reads_history = extras.reads_history;
        request.salt = extras.salted.then_some("salt");
        let leader = all.len() as u64;
        for fork in 0..=extras.forks {
            let group = (extras.forks > 0).then_some(leader);
            all.push(Request { seed: extras.seed + fork as u64, group, ..request.clone() });
        }
    }
    all
}

prop_compose! {
    fn cap()(max_seqs in prop::option::weighted(0.5, 1..4usize), max_rate in prop::option::weighted(0.5, 20.0..2_000.0f64)) -> Cap {
        Cap { max_seqs, max_rate }
    }
}

fn caps() -> impl Strategy<Value = Caps> {
    prop_oneof![2 => Just(Caps::default()), 1 => (cap(), cap()).prop_map(|(tenant, connection)| Caps { tenant, connection })]
}

prop_compose! {
    fn scenario()(
        max_num_batched_tokens in 1..80usize, max_num_seqs in 1..10usize, block_size in 1..17usize, pool_tokens in 20..250usize,
        max_model_len in prop_oneof![Just(1000), 40..100usize],
        pacing in prop_oneof![1 => Just(Pacing::Off), 1 => Just(Pacing::Global), 3 => Just(Pacing::PerConnection)],
        pacing_law in prop::sample::select(PacingLaw::ALL),
        (stream_rate_cap, caps) in (prop::option::weighted(0.3, 5.0..500.0f64), caps()),
        factor in swing(),
        num_host_blocks in prop_oneof![1 => Just(0usize), 2 => 1..40usize],
        block_copy_us in prop::sample::select(vec![0u64, 100, 1_000, 1_000_000]),
        enable_prefix_caching in prop::bool::weighted(0.8), by_priority in prop::bool::weighted(0.4),
        long_prefill_token_threshold in prop_oneof![Just(0), 1..40usize], prefill_quantum in prop_oneof![Just(0), 1..40usize],
        max_steps_in_flight in 1..=MAX_STEPS_IN_FLIGHT,
        drafts in prop::option::weighted(0.4, (1..8usize, 1..4usize, 0..3usize, 1..12usize)),
        requests in prop::collection::vec((request(), extras()), 1..12),
    ) -> Scenario {
        let requests = with_extras(requests);
        let policy = if by_priority { SchedulingPolicy::Priority } else { SchedulingPolicy::Fcfs };
        let speculative = drafts.map(|(num_speculative_tokens, prompt_lookup_min, more, disable_by_batch_size)| NgramConfig {
            num_speculative_tokens, prompt_lookup_min, prompt_lookup_max: prompt_lookup_min + more, disable_by_batch_size,
        });
        let config = SchedulerConfig {
            max_num_batched_tokens, max_num_seqs, block_size, num_blocks: pool_tokens.div_ceil(block_size), max_model_len,
            pacing, pacing_law, stream_rate_cap, caps, enable_prefix_caching, policy, long_prefill_token_threshold, prefill_quantum, speculative,
            max_steps_in_flight, num_host_blocks, block_copy_time: Duration::from_micros(block_copy_us),
            ..SchedulerConfig::default()
        };
        Scenario { config, factor, requests }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn output_does_not_depend_on_what_the_scheduler_decides(scenario in scenario()) {
        check_outcome(&scenario, &simulate(&scenario, |_, _, _| ()));
    }

    #[test]
    fn steps_that_fail_end_their_own_requests_and_no_others_change(
        scenario in scenario(), failing in prop::collection::vec(0..60u64, 1..4),
    ) {
        check_outcome(&scenario, &simulate_failures(&scenario, &failing, |_, _, _| ()));
    }

    #[test]
    fn the_same_happens_again(scenario in scenario()) {
        let plans = || simulate(&scenario, |_, _, _| ()).plans;
        prop_assert_eq!(plans(), plans());
    }

    #[test]
    fn first_come_is_first_served(mut scenario in scenario()) {
        scenario.config.pacing = Pacing::Off;
        scenario.config.stream_rate_cap = None;
        scenario.config.caps = Caps::default();
        scenario.config.policy = SchedulingPolicy::Fcfs;
        scenario.config.long_prefill_token_threshold = 0;
        for request in &mut scenario.requests {
            (request.cancel_after_ms, request.timeout_ms, request.group) = (None, None, None);
        }
        let outcome = simulate(&scenario, |_, _, _| ());
        let mut arrivals: Vec<u64> = outcome.outputs.keys().copied().collect();
        arrivals.sort_by_key(|&i| scenario.requests[i as usize].arrival_ms);
        let arrival = |ids: &[u64]| -> Vec<u64> { ids.iter().map(|&i| scenario.requests[i as usize].arrival_ms).collect() };
        prop_assert_eq!(arrival(&outcome.first_scheduled), arrival(&arrivals));
    }

    /// In every state that a run with pacing reaches, a healthy sequence gets at least as many tokens as it would with pacing off.
    #[test]
    fn healthy_streams_never_get_less_than_off_would_give(mut scenario in scenario()) {
        scenario.config.pacing = Pacing::PerConnection;
        scenario.config.max_num_batched_tokens += scenario.config.max_num_seqs;
        scenario.config.policy = SchedulingPolicy::Fcfs;
        scenario.config.speculative = None;
        // What one by a slow link would have kept in the cache, had it not let others pass, may be gone.
        scenario.config.enable_prefix_caching = false;
        // Who sits out leaves its owner's share to others, who may then take a share of a third.
        scenario.config.caps = Caps::default();
        // What a long prompt gets beyond its share is what nobody else wants, and pacing lets others in.
        scenario.config.long_prefill_token_threshold = 0;
        for (i, request) in scenario.requests.iter_mut().enumerate() {
            if i % 2 == 0 {
                request.link = None;
            }
            // Where the first of a group has gone, who computes the prompt in its place depends on who sits out.
            request.group = None;
        }
        simulate(&scenario, |scheduler, now, network| {
            let end_by_id = |pacing| {
                let mut scheduler = scheduler.clone();
                scheduler.set_pacing(pacing);
                let plan = scheduler.plan(now, network).unwrap_or_default();
                plan.sequences.into_iter().map(|s| (s.id, s.start + s.tokens.len())).collect::<HashMap<_, _>>()
            };
            let (off, paced) = (end_by_id(Pacing::Off), end_by_id(Pacing::PerConnection));
            // How far each gets, of which the prefix cache may give a part.
            for (id, end) in off.iter().filter(|(id, _)| id.0 % 2 == 0) {
                let got = paced.get(id).copied().unwrap_or(0);
                assert!(got >= *end, "sequence {} gets to {got}, with pacing off to {end}", id.0);
            }
        });
    }
}
