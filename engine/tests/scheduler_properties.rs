//! The scheduler against a fake executor in virtual time: whatever it decides, outputs are what each sequence alone would get,
//! every sequence finishes and every block comes back.
//!
//! The executor computes the next token as a hash of all tokens before it, read back from simulated KV slots through the block table: a
//! missing, stale or misplaced token, or a block that two sequences write, changes the output.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use proptest::prelude::*;
use tokenflow_engine::{
    sampling::{SampledToken, SamplingParams},
    scheduler::{
        AddError, FinishReason, Network, NewSequence, Pacing, Scheduler, SchedulerConfig, SequenceId, StepOutput, StepPlan, StreamSignal,
        pacing::{LOOK_AGAIN_AFTER, MAX_UNDELIVERED_BYTES, MIN_STEP_BUDGET, PARK_AFTER},
    },
};

const CHUNK_BYTES: u32 = 200;
const VOCAB: u64 = 50;
const STOP_TOKEN: u32 = 7;

/// The token that follows `history`.
fn next_token(history: &[u32]) -> u32 {
    let hash = history.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, &t| (h ^ u64::from(t)).wrapping_mul(0x0100_0000_01b3).rotate_left(23));
    ((hash >> 20) % VOCAB) as u32
}

/// What a sequence alone, unconstrained but for `limit` tokens in all, generates.
fn reference(request: &Request, limit: usize) -> (Vec<u32>, FinishReason) {
    let mut tokens = request.prompt.clone();
    loop {
        let token = next_token(&tokens);
        tokens.push(token);
        let finish = if request.stops && token == STOP_TOKEN {
            FinishReason::Stop
        } else if tokens.len() >= (request.prompt.len() + request.max_tokens).min(limit) {
            FinishReason::Length
        } else {
            continue;
        };
        return (tokens.split_off(request.prompt.len()), finish);
    }
}

/// Simulated KV memory: which token was written at which position, by slot.
struct FakeExecutor {
    block_size: usize,
    slots: Vec<Option<(u32, usize)>>,
}

impl FakeExecutor {
    fn new(config: &SchedulerConfig) -> Self {
        Self { block_size: config.block_size, slots: vec![None; config.num_blocks * config.block_size] }
    }

    /// As a model does in each layer: all tokens write their KV, then every query reads its history.
    fn execute(&mut self, plan: &StepPlan) -> StepOutput {
        let mut output = StepOutput { step: plan.step, sampled: Vec::new() };
        let mut written = HashSet::new();
        for s in &plan.sequences {
            for (i, &token) in s.tokens.iter().enumerate() {
                let slot = self.slot(&s.block_table, s.start + i);
                assert!(written.insert(slot), "slot {slot} is written twice in step {}", plan.step);
                self.slots[slot] = Some((token, s.start + i));
            }
        }
        for s in &plan.sequences {
            let history: Vec<u32> = (0..s.start + s.tokens.len())
                .map(|position| {
                    let (token, stored_at) = self.slots[self.slot(&s.block_table, position)].expect("history was written");
                    assert_eq!(stored_at, position, "stale KV of sequence {} in step {}", s.id.0, plan.step);
                    token
                })
                .collect();
            if let Some(sample) = &s.sample {
                assert!(sample.output_position < history.len());
                output.sampled.push((s.id, SampledToken { token: next_token(&history), logprob: None, top: Vec::new() }));
            }
        }
        output
    }

    fn slot(&self, block_table: &[tokenflow_engine::kv::BlockId], position: usize) -> usize {
        block_table[position / self.block_size].0 as usize * self.block_size + position % self.block_size
    }
}

/// One link in virtual time: it delivers at `bytes_per_s`, except that it stands still during `stall`.
#[derive(Clone, Debug)]
struct Link {
    bytes_per_s: f64,
    stall: std::ops::Range<u64>,
    health: f64,
    /// Whether the rate is known to the scheduler.
    measured: bool,
}

#[derive(Clone, Debug, Default)]
struct FakeNetwork {
    factor: f64,
    links: HashMap<SequenceId, (Link, f64)>,
}

impl FakeNetwork {
    fn deliver(&mut self, from: Duration, to: Duration) {
        for (link, undelivered) in self.links.values_mut() {
            let stalled = link.stall.contains(&(from.as_millis() as u64));
            let delivered = if stalled { 0.0 } else { link.bytes_per_s * (to - from).as_secs_f64() };
            *undelivered = (*undelivered - delivered).max(0.0);
        }
    }
}

impl Network for FakeNetwork {
    fn health_factor(&self) -> f64 {
        self.factor
    }

    fn stream(&self, id: SequenceId) -> Option<StreamSignal> {
        let (link, undelivered) = self.links.get(&id)?;
        Some(StreamSignal {
            health: link.health,
            undelivered_bytes: *undelivered as u64,
            delivery_rate_bytes_per_s: link.measured.then_some(link.bytes_per_s),
            min_rtt_us: Some(10_000),
            chunk_bytes: CHUNK_BYTES,
        })
    }
}

/// Counts questions, so that a test sees that none is asked twice in a plan.
struct CountingNetwork<'a> {
    network: &'a FakeNetwork,
    asked: std::cell::RefCell<HashMap<SequenceId, usize>>,
}

impl Network for CountingNetwork<'_> {
    fn health_factor(&self) -> f64 {
        self.network.health_factor()
    }

    fn stream(&self, id: SequenceId) -> Option<StreamSignal> {
        *self.asked.borrow_mut().entry(id).or_default() += 1;
        self.network.stream(id)
    }
}

#[derive(Clone, Debug)]
struct Request {
    prompt: Vec<u32>,
    max_tokens: usize,
    stops: bool,
    streamed: bool,
    arrival_ms: u64,
    /// The client goes away this long after it came, in the middle of a step or between two.
    cancel_after_ms: Option<(u64, bool)>,
    link: Option<Link>,
}

#[derive(Clone, Debug)]
struct Scenario {
    config: SchedulerConfig,
    factor: f64,
    requests: Vec<Request>,
}

impl Scenario {
    fn limit(&self) -> usize {
        self.config.max_model_len.min(self.config.num_blocks * self.config.block_size + 1)
    }

    fn sequence(&self, i: usize) -> NewSequence {
        let request = &self.requests[i];
        NewSequence {
            id: SequenceId(i as u64),
            prompt: request.prompt.clone(),
            max_tokens: request.max_tokens,
            stop_token_ids: if request.stops { vec![STOP_TOKEN] } else { Vec::new() },
            sampling: SamplingParams::greedy(),
            streamed: request.streamed,
            arrival: Duration::from_millis(request.arrival_ms),
        }
    }
}

#[derive(Debug, Default)]
struct Outcome {
    outputs: BTreeMap<u64, (Vec<u32>, Option<FinishReason>)>,
    cancelled: HashSet<u64>,
    /// In order of their first token's computation.
    first_scheduled: Vec<u64>,
    steps: usize,
    /// By sequence.
    preemptions: BTreeMap<u64, u32>,
    paced_steps: usize,
    /// When each sequence's tokens came.
    token_times: BTreeMap<u64, Vec<Duration>>,
}

/// Drives the scheduler as the engine does, checking after every call what must always hold.
fn simulate(scenario: &Scenario, mut inspect: impl FnMut(&Scheduler, Duration, &FakeNetwork)) -> Outcome {
    let config = &scenario.config;
    let mut scheduler = Scheduler::new(config.clone());
    let mut executor = FakeExecutor::new(config);
    let mut network = FakeNetwork { factor: scenario.factor, links: HashMap::new() };
    let mut outcome = Outcome::default();
    let mut now = Duration::ZERO;
    let mut to_come: Vec<usize> = (0..scenario.requests.len()).collect();
    to_come.sort_by_key(|&i| scenario.requests[i].arrival_ms);
    to_come.reverse();

    for _ in 0..200_000 {
        while let Some(&i) = to_come.last().filter(|&&i| scenario.requests[i].arrival_ms <= now.as_millis() as u64) {
            to_come.pop();
            if scheduler.add(scenario.sequence(i)).is_ok() {
                outcome.outputs.insert(i as u64, (Vec::new(), None));
                if let Some(link) = &scenario.requests[i].link {
                    network.links.insert(SequenceId(i as u64), (link.clone(), 0.0));
                }
            }
        }
        let cancel_due = |outcome: &mut Outcome, scheduler: &mut Scheduler, in_step: bool| {
            for (i, request) in scenario.requests.iter().enumerate() {
                let due = request
                    .cancel_after_ms
                    .is_some_and(|(after, within)| within == in_step && Duration::from_millis(request.arrival_ms + after) <= now);
                let id = i as u64;
                if due && outcome.outputs.get(&id).is_some_and(|(_, finish)| finish.is_none()) && outcome.cancelled.insert(id) {
                    assert!(scheduler.cancel(SequenceId(id)), "sequence {id} is here to be cancelled");
                    assert!(!scheduler.cancel(SequenceId(id)), "sequence {id} is cancelled once");
                }
            }
        };
        cancel_due(&mut outcome, &mut scheduler, false);
        if scheduler.is_empty() && to_come.is_empty() {
            assert_eq!(scheduler.stats().kv_blocks_used, 0, "all blocks come back");
            return outcome;
        }
        inspect(&scheduler, now, &network);
        let counting = CountingNetwork { network: &network, asked: Default::default() };
        let Some(plan) = scheduler.plan(now, &counting) else {
            scheduler.check_invariants().unwrap();
            let arrival = to_come.last().map(|&i| Duration::from_millis(scenario.requests[i].arrival_ms));
            let wakeup = scheduler.next_wakeup(now);
            let next = [arrival, wakeup].into_iter().flatten().min();
            let next = next.unwrap_or_else(|| panic!("nothing runs and nothing will: {:?}", scheduler.stats()));
            assert!(next > now, "the wake-up is in the future");
            network.deliver(now, next);
            now = next;
            continue;
        };
        assert!(counting.asked.borrow().values().all(|&times| times == 1), "asked twice of one stream");
        check_plan(&plan, scenario, &scheduler);
        scheduler.check_invariants().unwrap();
        outcome.steps += 1;
        outcome.paced_steps += scheduler.stats().paced;
        for s in &plan.sequences {
            assert!(!scheduler.is_paced(s.id));
            if !outcome.first_scheduled.contains(&s.id.0) {
                outcome.first_scheduled.push(s.id.0);
            }
        }

        let output = executor.execute(&plan);
        cancel_due(&mut outcome, &mut scheduler, true);
        let done = now + Duration::from_micros(500 + 100 * plan.num_tokens() as u64);
        network.deliver(now, done);
        now = done;
        for update in scheduler.apply(&plan, output, now) {
            assert!(!outcome.cancelled.contains(&update.id.0), "no update after a cancel");
            let (tokens, finish) = outcome.outputs.get_mut(&update.id.0).unwrap();
            assert!(finish.is_none(), "no update after the last");
            assert_eq!(update.queued.is_some(), tokens.is_empty());
            tokens.push(update.token.token);
            *finish = update.finish;
            outcome.preemptions.insert(update.id.0, update.preemptions);
            outcome.token_times.entry(update.id.0).or_default().push(now);
            if let Some((_, undelivered)) = network.links.get_mut(&update.id) {
                *undelivered += f64::from(CHUNK_BYTES);
            }
        }
        scheduler.check_invariants().unwrap();
    }
    panic!("not done after {} steps at {now:?}: {:?}", outcome.steps, scheduler.stats());
}

fn check_plan(plan: &StepPlan, scenario: &Scenario, scheduler: &Scheduler) {
    let config = &scenario.config;
    let budget = match config.pacing {
        Pacing::Global => ((config.max_num_batched_tokens as f64 * scenario.factor).round() as usize).max(MIN_STEP_BUDGET),
        _ => config.max_num_batched_tokens,
    };
    assert!(plan.num_tokens() <= budget.min(config.max_num_batched_tokens), "{} tokens of {budget}", plan.num_tokens());
    assert!(plan.sequences.len() <= config.max_num_seqs);
    let stats = scheduler.stats();
    assert_eq!(stats.prefill_tokens + stats.decode_tokens, plan.num_tokens());
    assert!(plan.num_tokens() <= stats.step_budget && stats.step_budget <= config.max_num_batched_tokens);
    for s in &plan.sequences {
        assert!(!s.tokens.is_empty());
        assert_eq!(s.block_table.len(), (s.start + s.tokens.len()).div_ceil(config.block_size));
    }
}

fn check_outcome(scenario: &Scenario, outcome: &Outcome) {
    for (i, request) in scenario.requests.iter().enumerate() {
        let Some((tokens, finish)) = outcome.outputs.get(&(i as u64)) else {
            assert!(request.prompt.len() >= scenario.limit(), "sequence {i} was refused");
            continue;
        };
        let (expected, reason) = reference(request, scenario.limit());
        if outcome.cancelled.contains(&(i as u64)) {
            assert_eq!(tokens[..], expected[..tokens.len()], "sequence {i}, cancelled");
        } else {
            assert_eq!((tokens, *finish), (&expected, Some(reason)), "sequence {i}");
        }
    }
}

prop_compose! {
    fn link()(
        bytes_per_s in prop_oneof![Just(1e9), 2_000.0..200_000.0f64],
        stall_start in 0..500u64, stall_ms in prop_oneof![Just(0), 0..4000u64],
        health in 0.0..=1.0f64, measured in any::<bool>(),
    ) -> Link {
        Link { bytes_per_s, stall: stall_start..stall_start + stall_ms, health, measured }
    }
}

prop_compose! {
    fn request()(
        prompt in prop::collection::vec(0..VOCAB as u32, 1..60), max_tokens in 1..60usize, stops in any::<bool>(), streamed in prop::bool::weighted(0.8),
        arrival_ms in 0..300u64, cancel_after_ms in prop::option::weighted(0.2, (0..400u64, any::<bool>())), link in prop::option::weighted(0.9, link()),
    ) -> Request {
        Request { prompt, max_tokens, stops, streamed, arrival_ms, cancel_after_ms, link }
    }
}

prop_compose! {
    fn scenario()(
        max_num_batched_tokens in 1..80usize, max_num_seqs in 1..10usize, block_size in 1..17usize, pool_tokens in 20..400usize,
        max_model_len in prop_oneof![Just(1000), 40..100usize],
        pacing in prop_oneof![Just(Pacing::Off), Just(Pacing::Global), Just(Pacing::PerConnection)],
        stream_rate_cap in prop::option::weighted(0.3, 5.0..500.0f64),
        factor in 0.0..=1.0f64,
        requests in prop::collection::vec(request(), 1..16),
    ) -> Scenario {
        let config = SchedulerConfig {
            max_num_batched_tokens, max_num_seqs, block_size, num_blocks: pool_tokens.div_ceil(block_size), max_model_len,
            pacing, max_waiting: None, stream_rate_cap,
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

fn small_config() -> SchedulerConfig {
    SchedulerConfig {
        max_num_batched_tokens: 64,
        max_num_seqs: 8,
        block_size: 4,
        num_blocks: 64,
        max_model_len: 1000,
        pacing: Pacing::PerConnection,
        max_waiting: None,
        stream_rate_cap: None,
    }
}

fn plain_request(prompt_tokens: u32, max_tokens: usize) -> Request {
    let prompt = (0..prompt_tokens).map(|t| t % VOCAB as u32).collect();
    Request { prompt, max_tokens, stops: false, streamed: true, arrival_ms: 0, cancel_after_ms: None, link: None }
}

fn slow_link(bytes_per_s: f64) -> Option<Link> {
    Some(Link { bytes_per_s, stall: 0..0, health: 1.0, measured: true })
}

#[test]
fn scarce_blocks_are_preempted_and_recomputed() {
    let scenario =
        Scenario { config: SchedulerConfig { num_blocks: 12, ..small_config() }, factor: 1.0, requests: vec![plain_request(8, 30); 4] };
    let outcome = simulate(&scenario, |_, _, _| ());
    check_outcome(&scenario, &outcome);
    assert!(outcome.preemptions.values().sum::<u32>() > 0);
}

#[test]
fn a_sequence_that_fills_the_pool_alone_ends_by_length() {
    let scenario =
        Scenario { config: SchedulerConfig { num_blocks: 4, ..small_config() }, factor: 1.0, requests: vec![plain_request(10, 100)] };
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
    let scenario = Scenario { config: small_config(), factor: 1.0, requests: vec![slow, fast] };
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
    let scenario = Scenario { config, factor: 1.0, requests: vec![stalled, waiting] };
    let outcome = simulate(&scenario, |_, _, _| ());
    check_outcome(&scenario, &outcome);
    let served = outcome.token_times[&1][0];
    assert!(served >= PARK_AFTER && served < PARK_AFTER + Duration::from_millis(100), "served at {served:?}");
}

#[test]
fn paced_sequences_are_preempted_before_later_ones_that_run() {
    let mut stalled = plain_request(16, 60);
    stalled.link = Some(Link { stall: 0..1_000, ..slow_link(4_000.0).unwrap() });
    let config = SchedulerConfig { num_blocks: 16, ..small_config() };
    let scenario = Scenario { config, factor: 1.0, requests: vec![stalled, plain_request(8, 50)] };
    let outcome = simulate(&scenario, |_, _, _| ());
    check_outcome(&scenario, &outcome);
    assert_eq!(outcome.preemptions, BTreeMap::from([(0, 1), (1, 0)]));
    assert!(outcome.token_times[&1].last() < Some(&Duration::from_millis(500)), "the healthy one ran through");
}

#[test]
fn every_mode_bounds_what_a_reader_who_never_reads_can_hold() {
    for pacing in [Pacing::Off, Pacing::Global] {
        let mut request = plain_request(8, 6_000);
        request.link = Some(Link { bytes_per_s: 1e9, stall: 0..60_000, health: 1.0, measured: false });
        let config = SchedulerConfig { pacing, num_blocks: 4_000, max_model_len: 10_000, ..small_config() };
        let scenario = Scenario { config, factor: 1.0, requests: vec![request] };
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
    request.link = Some(Link { bytes_per_s: 1.0, stall: 0..0, health: 0.0, measured: true });
    let config = SchedulerConfig { stream_rate_cap: Some(1.0), ..small_config() };
    let outcome = simulate(&Scenario { config, factor: 1.0, requests: vec![request] }, |_, _, _| ());
    assert_eq!((outcome.paced_steps, outcome.steps), (0, 60));
}

#[test]
fn decodes_beyond_the_budget_take_turns() {
    let config = SchedulerConfig { max_num_seqs: 40, pacing: Pacing::Global, ..small_config() };
    let mut scheduler = Scheduler::new(config.clone());
    let mut executor = FakeExecutor::new(&config);
    let mut network = FakeNetwork { factor: 1.0, links: HashMap::new() };
    let scenario = Scenario { config, factor: 1.0, requests: vec![plain_request(1, 50); 40] };
    for i in 0..40 {
        scheduler.add(scenario.sequence(i)).unwrap();
    }
    let mut step = |scheduler: &mut Scheduler, network: &FakeNetwork| {
        let plan = scheduler.plan(Duration::ZERO, network).unwrap();
        let output = executor.execute(&plan);
        scheduler.apply(&plan, output, Duration::ZERO)
    };
    assert_eq!(step(&mut scheduler, &network).len(), 40);
    network.factor = 0.0;
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
    bad.link = Some(Link { health: 0.25, ..slow_link(1e6).unwrap() });
    let network = FakeNetwork { factor: 1.0, links: HashMap::from([(SequenceId(0), (bad.link.clone().unwrap(), 0.0))]) };
    let scenario = Scenario { config: small_config(), factor: 1.0, requests: vec![bad, plain_request(200, 5)] };
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
    let outcome = simulate(&Scenario { config, factor: 1.0, requests: vec![plain_request(8, 31)] }, |_, _, _| ());
    let times = &outcome.token_times[&0];
    // Tolerance lets one go ahead; the rest follow at 10 a second.
    let span = (times[30] - times[1]).as_secs_f64();
    assert!((span - 2.9).abs() < 0.01, "29 tokens in {span} s");
}

#[test]
fn a_failed_step_drops_its_sequences_and_no_other() {
    let mut scheduler = Scheduler::new(SchedulerConfig { max_num_seqs: 2, ..small_config() });
    let network = FakeNetwork { factor: 1.0, links: HashMap::new() };
    let scenario = Scenario { config: small_config(), factor: 1.0, requests: vec![plain_request(8, 5); 4] };
    for i in 0..4 {
        scheduler.add(scenario.sequence(i)).unwrap();
    }
    scheduler.plan(Duration::ZERO, &network).unwrap();
    assert_eq!(scheduler.plan(Duration::ZERO, &network), None, "one step at a time");
    assert!(scheduler.cancel(SequenceId(1)));
    assert_eq!(scheduler.fail_step(), [SequenceId(0)]);
    scheduler.check_invariants().unwrap();
    scheduler.plan(Duration::ZERO, &network).unwrap();
    assert_eq!(scheduler.abort_all(), [SequenceId(2), SequenceId(3)]);
    assert!(scheduler.is_empty());
    assert_eq!(scheduler.stats().kv_blocks_used, 0);
}

#[test]
fn what_could_never_run_is_refused_with_both_numbers() {
    let scenario = |prompt| Scenario { config: small_config(), factor: 1.0, requests: vec![plain_request(prompt, 5)] };
    let add = |config: SchedulerConfig, prompt| Scheduler::new(config).add(scenario(prompt).sequence(0));
    let message = |result: Result<(), AddError>| result.unwrap_err().to_string();
    assert_eq!(add(small_config(), 256), Ok(()));
    assert_eq!(message(add(small_config(), 257)), "the prompt has 257 tokens, but the whole KV cache holds 256");
    assert_eq!(
        message(add(SchedulerConfig { max_model_len: 100, ..small_config() }, 100)),
        "the prompt has 100 tokens, which leaves no room for output in the model's context of 100 tokens"
    );
    assert_eq!(message(add(small_config(), 0)), "the prompt is empty");
    assert_eq!(message(add(SchedulerConfig { max_waiting: Some(0), ..small_config() }, 1)), "0 requests are waiting already");
}

#[test]
fn streams_that_wait_for_acknowledgements_are_looked_at_again_soon() {
    let mut scheduler = Scheduler::new(small_config());
    let mut request = plain_request(1, 5);
    request.link = slow_link(0.0);
    let network = FakeNetwork { factor: 1.0, links: HashMap::from([(SequenceId(0), (request.link.clone().unwrap(), 1e5))]) };
    scheduler.add(Scenario { config: small_config(), factor: 1.0, requests: vec![request] }.sequence(0)).unwrap();
    let now = Duration::from_secs(3);
    assert_eq!(scheduler.plan(now, &network), None);
    assert_eq!(scheduler.next_wakeup(now), Some(now + LOOK_AGAIN_AFTER));
    assert!(scheduler.is_paced(SequenceId(0)));
    assert_eq!(scheduler.stats().paced, 1);
}
