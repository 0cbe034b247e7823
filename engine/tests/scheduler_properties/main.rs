//! The scheduler against a fake executor in virtual time: whatever it decides, outputs are what each sequence alone would get,
//! every sequence finishes and every block comes back.

mod behaviour;
mod simulation;

use std::collections::HashMap;

use proptest::prelude::*;
use simulation::{Link, Request, Scenario, Swing, VOCAB, check_outcome, simulate};
use tokenflow_engine::scheduler::{Pacing, SchedulerConfig};

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
        Request { prompt, max_tokens, stops, streamed, arrival_ms, cancel_after_ms, link }
    }
}

prop_compose! {
    fn scenario()(
        max_num_batched_tokens in 1..80usize, max_num_seqs in 1..10usize, block_size in 1..17usize, pool_tokens in 20..250usize,
        max_model_len in prop_oneof![Just(1000), 40..100usize],
        pacing in prop_oneof![Just(Pacing::Off), Just(Pacing::Global), Just(Pacing::PerConnection)],
        stream_rate_cap in prop::option::weighted(0.3, 5.0..500.0f64),
        factor in swing(),
        requests in prop::collection::vec(request(), 1..16),
    ) -> Scenario {
        let config = SchedulerConfig {
            max_num_batched_tokens, max_num_seqs, block_size, num_blocks: pool_tokens.div_ceil(block_size), max_model_len,
            pacing, stream_rate_cap, ..SchedulerConfig::default()
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
    fn first_come_is_first_served(mut scenario in scenario()) {
        scenario.config.pacing = Pacing::Off;
        scenario.config.stream_rate_cap = None;
        for request in &mut scenario.requests {
            request.cancel_after_ms = None;
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
        for (i, request) in scenario.requests.iter_mut().enumerate() {
            if i % 2 == 0 {
                request.link = None;
            }
        }
        simulate(&scenario, |scheduler, now, network| {
            let tokens_by_id = |pacing| {
                let mut scheduler = scheduler.clone();
                scheduler.set_pacing(pacing);
                let plan = scheduler.plan(now, network).unwrap_or_default();
                plan.sequences.into_iter().map(|s| (s.id, s.tokens.len())).collect::<HashMap<_, _>>()
            };
            let (off, paced) = (tokens_by_id(Pacing::Off), tokens_by_id(Pacing::PerConnection));
            for (id, tokens) in off.iter().filter(|(id, _)| id.0 % 2 == 0) {
                let got = paced.get(id).copied().unwrap_or(0);
                assert!(got >= *tokens, "sequence {} got {got} tokens, off gives {tokens}", id.0);
            }
        });
    }
}
