//! The fake executor and network, and the loop that drives the scheduler with them.
//!
//! The executor computes the next token as a hash of all tokens before it, read back from simulated KV slots through the block table: a
//! missing, stale or misplaced token, or a block that two sequences write, changes the output.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use tokenflow_engine::{
    kv::BlockId,
    sampling::{LogitAdjustments, SampledToken, SamplingParams},
    scheduler::{
        Cap, FinishReason, Network, NewSequence, Pacing, Scheduler, SchedulerConfig, SequenceId, SequenceUpdate, StepOutput, StepPlan,
        StreamSignal,
        pacing::{MIN_STEP_BUDGET, RATE_CAP_TOLERANCE},
    },
};

pub const CHUNK_BYTES: u32 = 200;
pub const VOCAB: u64 = 50;
const STOP_TOKEN: u32 = 7;

/// Length of the phrases that outputs repeat, so that guesses at them are often right.
const PHRASE: usize = 5;

/// The token that follows `history`: as a rule what came a phrase earlier, otherwise any.
pub fn next_token(history: &[u32], seed: u64) -> u32 {
    let hash =
        history.iter().fold(seed ^ 0xcbf2_9ce4_8422_2325u64, |h, &t| (h ^ u64::from(t)).wrapping_mul(0x0100_0000_01b3).rotate_left(23));
    match history.len().checked_sub(PHRASE) {
        Some(earlier) if !hash.is_multiple_of(8) => history[earlier],
        _ => ((hash >> 20) % VOCAB) as u32,
    }
}

/// What a sequence alone, unconstrained but for `limit` tokens in all, generates.
pub fn reference(request: &Request, limit: usize) -> (Vec<u32>, FinishReason) {
    let mut tokens = request.prompt.clone();
    loop {
        let token = next_token(&tokens, request.seed);
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
pub struct FakeExecutor {
    pub block_size: usize,
    pub slots: Vec<Option<(u32, usize)>>,
    pub host_slots: Vec<Option<(u32, usize)>>,
    /// What the last step sampled, row by row.
    sampled: Vec<u32>,
}

impl FakeExecutor {
    pub fn new(config: &SchedulerConfig) -> Self {
        let slots = |num_blocks| vec![None; num_blocks * config.block_size];
        let (slots, host_slots) = (slots(config.num_blocks), slots(config.num_host_blocks));
        Self { block_size: config.block_size, slots, host_slots, sampled: Vec::new() }
    }

    /// As a model does in each layer: all tokens write their KV, then every query reads its history.
    pub fn execute(&mut self, plan: &StepPlan) -> StepOutput {
        let mut output = StepOutput { step: plan.step, ..StepOutput::default() };
        let size = self.block_size;
        let block = |index: u32| index as usize * size..(index as usize + 1) * size;
        for transfer in &plan.offload {
            self.host_slots[block(transfer.host.0)].copy_from_slice(&self.slots[block(transfer.device.0)]);
        }
        for copy in &plan.copies {
            let (from, to) = (copy.from.0 as usize * self.block_size, copy.to.0 as usize * self.block_size);
            self.slots.copy_within(from..from + self.block_size, to);
        }
        for transfer in &plan.onload {
            self.slots[block(transfer.device.0)].copy_from_slice(&self.host_slots[block(transfer.host.0)]);
        }
        let mut written = HashSet::new();
        for s in &plan.sequences {
            let mut tokens = s.tokens.clone();
            if let Some(row) = s.pending {
                *tokens.last_mut().unwrap() = self.sampled[row];
            }
            for (i, token) in tokens.into_iter().enumerate() {
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
            let Some(sample) = &s.sample else { continue };
            assert!(sample.output_position < history.len());
            assert!(s.pending.is_none() || !sample.params.depends_on_history(), "the host would have to know the token");
            assert_eq!(sample.history, sample.params.reads_history().then(|| history.clone()));
            for end in history.len() - s.num_draft_tokens..=history.len() {
                let token = next_token(&history[..end], sample.params.seed);
                output.sampled.push((s.id, SampledToken { token, logprob: None, top: Vec::new() }));
            }
        }
        self.sampled = output.sampled.iter().map(|(_, token)| token.token).collect();
        output
    }

    /// The same where the device fails: all that the step was to write is lost.
    fn fail(&mut self, plan: &StepPlan) {
        let size = self.block_size;
        let block = |index: u32| index as usize * size..(index as usize + 1) * size;
        plan.offload.iter().for_each(|transfer| self.host_slots[block(transfer.host.0)].fill(None));
        plan.copies.iter().for_each(|copy| self.slots[block(copy.to.0)].fill(None));
        plan.onload.iter().for_each(|transfer| self.slots[block(transfer.device.0)].fill(None));
        for s in &plan.sequences {
            for position in s.start..s.start + s.tokens.len() {
                let slot = self.slot(&s.block_table, position);
                self.slots[slot] = None;
            }
        }
        self.sampled.clear();
    }

    pub fn slot(&self, block_table: &[BlockId], position: usize) -> usize {
        block_table[position / self.block_size].0 as usize * self.block_size + position % self.block_size
    }
}

/// One link in virtual time: it delivers at `bytes_per_s`, except that it stands still during `stall` (milliseconds).
#[derive(Clone, Debug)]
pub struct Link {
    pub bytes_per_s: f64,
    pub stall: std::ops::Range<u64>,
    pub health: Swing,
    /// Whether the rate is known to the scheduler.
    pub measured: bool,
}

/// A value that changes to and fro, each time after `period_ms`.
#[derive(Clone, Copy, Debug)]
pub struct Swing {
    pub values: [f64; 2],
    pub period_ms: u64,
}

impl Swing {
    pub fn at(&self, now: Duration) -> f64 {
        self.values[(now.as_millis() as u64 / self.period_ms % 2) as usize]
    }
}

pub fn steady(value: f64) -> Swing {
    Swing { values: [value; 2], period_ms: 1 }
}

#[derive(Clone, Debug)]
pub struct FakeNetwork {
    pub now: Duration,
    pub factor: Swing,
    /// Each link, and the bytes that wait for it.
    pub links: HashMap<SequenceId, (Link, f64)>,
}

impl FakeNetwork {
    pub fn new(factor: Swing) -> Self {
        Self { now: Duration::ZERO, factor, links: HashMap::new() }
    }

    pub fn deliver(&mut self, to: Duration) {
        let from = std::mem::replace(&mut self.now, to);
        for (link, undelivered) in self.links.values_mut() {
            let stalled = link.stall.contains(&(from.as_millis() as u64));
            let delivered = if stalled { 0.0 } else { link.bytes_per_s * (to - from).as_secs_f64() };
            *undelivered = (*undelivered - delivered).max(0.0);
        }
    }
}

impl Network for FakeNetwork {
    fn health_factor(&self) -> f64 {
        self.factor.at(self.now)
    }

    fn stream(&self, id: SequenceId) -> Option<StreamSignal> {
        let (link, undelivered) = self.links.get(&id)?;
        Some(StreamSignal {
            health: link.health.at(self.now),
            undelivered_bytes: *undelivered as u64,
            delivery_rate_bytes_per_s: link.measured.then_some(link.bytes_per_s),
            min_rtt_us: Some(10_000),
            chunk_bytes: CHUNK_BYTES,
        })
    }
}

/// Counts questions, so that a test sees that none is asked twice in a plan.
pub struct CountingNetwork<'a> {
    pub network: &'a FakeNetwork,
    pub asked: std::cell::RefCell<HashMap<SequenceId, usize>>,
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

#[derive(Clone, Debug, Default)]
pub struct Request {
    pub prompt: Vec<u32>,
    pub max_tokens: usize,
    pub stops: bool,
    pub streamed: bool,
    pub arrival_ms: u64,
    /// The client goes away this long after it came, in the middle of a step or between two.
    pub cancel_after_ms: Option<(u64, bool)>,
    pub link: Option<Link>,
    pub seed: u64,
    pub priority: i64,
    pub salt: Option<&'static str>,
    /// The request with the same prompt and arrival that computes the prompt; its own number for that one itself.
    pub group: Option<u64>,
    /// It ends this long after it came.
    pub timeout_ms: Option<u64>,
    pub tenant: Option<&'static str>,
    pub connection: Option<u64>,
    /// Its tokens depend on those before them in a way that the host has to see.
    pub reads_history: bool,
}

#[derive(Clone, Debug)]
pub struct Scenario {
    pub config: SchedulerConfig,
    pub factor: Swing,
    pub requests: Vec<Request>,
}

impl Scenario {
    pub fn limit(&self) -> usize {
        self.config.max_model_len.min(self.config.num_blocks * self.config.block_size + 1)
    }

    pub fn sequence(&self, i: usize) -> NewSequence {
        let request = &self.requests[i];
        let penalty = LogitAdjustments { repetition_penalty: 1.1, ..LogitAdjustments::default() };
        NewSequence {
            id: SequenceId(i as u64),
            prompt: request.prompt.clone(),
            max_tokens: request.max_tokens,
            stop_token_ids: if request.stops { vec![STOP_TOKEN] } else { Vec::new() },
            sampling: SamplingParams {
                seed: request.seed,
                adjustments: request.reads_history.then(|| penalty.into()),
                ..SamplingParams::greedy()
            },
            streamed: request.streamed,
            arrival: Duration::from_millis(request.arrival_ms),
            priority: request.priority,
            cache_salt: request.salt.map(Into::into),
            group: request.group.map(SequenceId),
            deadline: request.timeout_ms.map(|timeout| Duration::from_millis(request.arrival_ms + timeout)),
            start_by: None,
            tenant: request.tenant.map(Into::into),
            connection: request.connection,
        }
    }
}

#[derive(Debug, Default)]
pub struct Outcome {
    pub outputs: BTreeMap<u64, (Vec<u32>, Option<FinishReason>)>,
    pub cancelled: HashSet<u64>,
    pub expired: HashSet<u64>,
    /// In a step that failed.
    pub failed: HashSet<u64>,
    /// In order of their first token's computation.
    pub first_scheduled: Vec<u64>,
    pub steps: usize,
    /// Steps that were planned while another was in flight, and their sequences whose last token was not known.
    pub steps_ahead: usize,
    pub pending: usize,
    /// By sequence.
    pub preemptions: BTreeMap<u64, u32>,
    pub paced_steps: usize,
    /// Of the prompt, as the first update said.
    pub cached_tokens: BTreeMap<u64, usize>,
    /// From its arrival on.
    pub steps_to_first_token: BTreeMap<u64, usize>,
    /// Of all plans.
    pub computed_tokens: usize,
    pub copies: usize,
    pub accepted_drafts: u64,
    /// Blocks copied to the host and back.
    pub offloaded: u64,
    pub onloaded: u64,
    /// When the first were copied to the host.
    pub offloaded_at: Option<Duration>,
    /// Hash of all plans in order.
    pub plans: u64,
    /// When each sequence's tokens came.
    pub token_times: BTreeMap<u64, Vec<Duration>>,
}

/// A step that the fake device has: what comes of it, and when.
struct Submitted {
    plan: StepPlan,
    /// `None` where the device fails.
    output: Option<StepOutput>,
    done: Duration,
}

/// Drives the scheduler as the engine does, checking after every call what must always hold.
pub fn simulate(scenario: &Scenario, inspect: impl FnMut(&Scheduler, Duration, &FakeNetwork)) -> Outcome {
    simulate_failures(scenario, &[], inspect)
}

/// The same with a device that fails in some steps.
pub fn simulate_failures(scenario: &Scenario, failing: &[u64], inspect: impl FnMut(&Scheduler, Duration, &FakeNetwork)) -> Outcome {
    let config = &scenario.config;
    let mut to_come: Vec<usize> = (0..scenario.requests.len()).collect();
    to_come.sort_by_key(|&i| scenario.requests[i].arrival_ms);
    to_come.reverse();
    Run {
        scenario,
        failing,
        inspect,
        scheduler: Scheduler::new(config.clone()),
        executor: FakeExecutor::new(config),
        network: FakeNetwork::new(scenario.factor),
        outcome: Outcome::default(),
        arrived_at_step: HashMap::new(),
        now: Duration::ZERO,
        owners_tokens: HashMap::new(),
        to_come,
        in_flight: VecDeque::new(),
    }
    .run()
}

struct Run<'a, Inspect> {
    scenario: &'a Scenario,
    failing: &'a [u64],
    inspect: Inspect,
    scheduler: Scheduler,
    executor: FakeExecutor,
    network: FakeNetwork,
    outcome: Outcome,
    arrived_at_step: HashMap<u64, usize>,
    now: Duration,
    owners_tokens: HashMap<Owner<'a>, (Duration, u32)>,
    to_come: Vec<usize>,
    in_flight: VecDeque<Submitted>,
}

impl<Inspect: FnMut(&Scheduler, Duration, &FakeNetwork)> Run<'_, Inspect> {
    fn run(mut self) -> Outcome {
        for _ in 0..200_000 {
            self.arrive();
            self.cancel_due(false);
            self.expire();
            self.scheduler.check_invariants().unwrap();
            if self.scheduler.is_empty() && self.to_come.is_empty() {
                while !self.in_flight.is_empty() {
                    self.collect();
                }
                return self.end();
            }
            (self.inspect)(&self.scheduler, self.now, &self.network);
            let counting = CountingNetwork { network: &self.network, asked: Default::default() };
            match self.scheduler.plan(self.now, &counting) {
                Some(plan) => {
                    assert!(counting.asked.borrow().values().all(|&times| times == 1), "asked twice of one stream");
                    self.submit(plan);
                    if self.in_flight.len() == self.scenario.config.max_steps_in_flight {
                        self.collect();
                    }
                }
                None if !self.in_flight.is_empty() => self.collect(),
                None => self.wait(),
            }
        }
        panic!("not done after {} steps at {:?}: {:?}", self.outcome.steps, self.now, self.scheduler.stats());
    }

    fn end(mut self) -> Outcome {
        let stats = self.scheduler.stats();
        assert_eq!((stats.running, stats.waiting), (0, 0));
        assert_eq!(stats.kv_blocks_used, 0, "all blocks come back");
        assert_eq!(stats.host_blocks_used, 0, "all host blocks come back");
        self.outcome.accepted_drafts = stats.accepted_draft_tokens;
        (self.outcome.offloaded, self.outcome.onloaded) = (stats.offloaded_blocks, stats.onloaded_blocks);
        self.outcome
    }

    fn arrive(&mut self) {
        let Self { scenario, scheduler, outcome, .. } = self;
        while let Some(&i) = self.to_come.last().filter(|&&i| scenario.requests[i].arrival_ms <= self.now.as_millis() as u64) {
            self.to_come.pop();
            if scheduler.add(scenario.sequence(i)).is_ok() {
                outcome.outputs.insert(i as u64, (Vec::new(), None));
                self.arrived_at_step.insert(i as u64, outcome.steps);
                if let Some(link) = &scenario.requests[i].link {
                    self.network.links.insert(SequenceId(i as u64), (link.clone(), 0.0));
                }
            }
        }
    }

    fn cancel_due(&mut self, in_step: bool) {
        let Self { scheduler, outcome, .. } = self;
        for (i, request) in self.scenario.requests.iter().enumerate() {
            let id = i as u64;
            let due = !outcome.expired.contains(&id)
                && !outcome.failed.contains(&id)
                && request
                    .cancel_after_ms
                    .is_some_and(|(after, within)| within == in_step && Duration::from_millis(request.arrival_ms + after) <= self.now);
            if due && outcome.outputs.get(&id).is_some_and(|(_, finish)| finish.is_none()) && outcome.cancelled.insert(id) {
                assert!(scheduler.cancel(SequenceId(id)), "sequence {id} is here to be cancelled");
                assert!(!scheduler.cancel(SequenceId(id)), "sequence {id} is cancelled once");
            }
        }
    }

    fn expire(&mut self) {
        let used = self.scheduler.stats().kv_blocks_used;
        let expired = self.scheduler.expire(self.now);
        for expired in &expired {
            let request = &self.scenario.requests[expired.id.0 as usize];
            assert!(request.timeout_ms.is_some_and(|timeout| Duration::from_millis(request.arrival_ms + timeout) <= self.now));
            assert!(!self.outcome.cancelled.contains(&expired.id.0), "who has been cancelled is gone");
            assert!(self.outcome.expired.insert(expired.id.0), "it expires once");
            assert_eq!(self.outcome.outputs[&expired.id.0].0.len(), expired.output_tokens);
        }
        assert!(expired.is_empty() || self.scheduler.stats().kv_blocks_used <= used);
    }

    /// Nothing can run: until something can.
    fn wait(&mut self) {
        self.scheduler.check_invariants().unwrap();
        let arrival = self.to_come.last().map(|&i| Duration::from_millis(self.scenario.requests[i].arrival_ms));
        let wakeup = self.scheduler.next_wakeup(self.now);
        let next = [arrival, wakeup, self.scheduler.next_deadline()].into_iter().flatten().min();
        let next = next.unwrap_or_else(|| panic!("nothing runs and nothing will: {:?}", self.scheduler.stats()));
        assert!(next > self.now, "the wake-up is in the future");
        self.network.deliver(next);
        self.now = next;
    }

    /// The device takes a step, and has it done some time after it was done with the one before.
    fn submit(&mut self, plan: StepPlan) {
        let Self { scheduler, outcome, .. } = self;
        check_plan(&plan, &self.scenario.config, self.network.health_factor(), scheduler);
        let stats = scheduler.stats();
        assert!(stats.parked <= stats.running && stats.tenant_capped + stats.connection_capped <= stats.waiting, "{stats:?}");
        scheduler.check_invariants().unwrap();
        outcome.steps += 1;
        outcome.computed_tokens += plan.num_tokens();
        outcome.copies += plan.copies.len();
        if !plan.offload.is_empty() {
            outcome.offloaded_at.get_or_insert(self.now);
        }
        if plan.step.is_multiple_of(16) {
            let json = serde_json::to_string(&plan).unwrap();
            assert_eq!(serde_json::from_str::<StepPlan>(&json).unwrap(), plan, "a plan is data");
        }
        outcome.plans = hash(outcome.plans, &plan);
        outcome.paced_steps += stats.paced;
        outcome.steps_ahead += usize::from(!self.in_flight.is_empty());
        for s in &plan.sequences {
            assert!(!scheduler.is_paced(s.id));
            assert!(s.pending.is_none() || !self.in_flight.is_empty(), "a token is known once its step is back");
            outcome.pending += usize::from(s.pending.is_some());
            if !outcome.first_scheduled.contains(&s.id.0) {
                outcome.first_scheduled.push(s.id.0);
            }
        }
        let fails = self.failing.contains(&plan.step) || self.in_flight.iter().any(|step| step.output.is_none());
        let output = if fails {
            self.executor.fail(&plan);
            None
        } else {
            Some(self.executor.execute(&plan))
        };
        let idle_at = self.in_flight.back().map_or(self.now, |step| step.done);
        let done = idle_at + Duration::from_micros(500 + 100 * plan.num_tokens() as u64);
        self.in_flight.push_back(Submitted { plan, output, done });
    }

    /// The oldest step comes back.
    fn collect(&mut self) {
        let Some(Submitted { plan, output, done }) = self.in_flight.pop_front() else { return };
        let is_alone = self.scenario.config.max_steps_in_flight == 1;
        let held_before = self.scheduler.stats().kv_blocks_used;
        let outside_before = is_alone.then(|| self.scheduler.stats().running - plan.sequences.len());
        let cancelled_before = self.outcome.cancelled.len();
        self.cancel_due(true);
        if self.outcome.cancelled.len() > cancelled_before && outside_before == Some(0) {
            assert_eq!(self.scheduler.stats().kv_blocks_used, held_before, "nothing of a step is freed before it comes back");
        }
        self.scheduler.check_invariants().unwrap();
        self.network.deliver(done);
        self.now = done;
        match output {
            Some(output) => self.scheduler.apply(&plan, output, done).into_iter().for_each(|update| self.take(update)),
            None => {
                for id in self.scheduler.fail_step(plan.step) {
                    assert!(!self.outcome.cancelled.contains(&id.0) && !self.outcome.expired.contains(&id.0), "who is gone does not fail");
                    assert!(self.outcome.outputs[&id.0].1.is_none() && self.outcome.failed.insert(id.0), "it fails once, before its end");
                }
                // What was submitted after it comes to nothing.
                self.in_flight.clear();
            }
        }
        self.scheduler.check_invariants().unwrap();
    }

    fn take(&mut self, update: SequenceUpdate) {
        let (outcome, id) = (&mut self.outcome, update.id.0);
        for gone in [&outcome.cancelled, &outcome.expired, &outcome.failed] {
            assert!(!gone.contains(&id), "no update for a sequence that is gone");
        }
        assert_eq!(update.cached_tokens.is_some(), update.queued.is_some());
        outcome.cached_tokens.extend(update.cached_tokens.map(|cached| (id, cached)));
        let (tokens, finish) = outcome.outputs.get_mut(&id).unwrap();
        assert!(finish.is_none(), "no update after the last");
        assert_eq!(update.queued.is_some(), tokens.is_empty());
        if tokens.is_empty() {
            outcome.steps_to_first_token.insert(id, outcome.steps - self.arrived_at_step[&id]);
        }
        tokens.push(update.token.token);
        check_rates(self.scenario, update.id, self.now, &mut self.owners_tokens);
        *finish = update.finish;
        outcome.preemptions.insert(id, update.preemptions);
        outcome.token_times.entry(id).or_default().push(self.now);
        if let Some((_, undelivered)) = self.network.links.get_mut(&update.id) {
            *undelivered += f64::from(CHUNK_BYTES);
        }
    }
}

fn hash(before: u64, plan: &StepPlan) -> u64 {
    let mut hasher = DefaultHasher::new();
    (before, plan.copies.iter().map(|copy| (copy.from, copy.to)).collect::<Vec<_>>()).hash(&mut hasher);
    for transfers in [&plan.offload, &plan.onload] {
        transfers.iter().map(|transfer| (transfer.device, transfer.host)).collect::<Vec<_>>().hash(&mut hasher);
    }
    for s in &plan.sequences {
        (s.id, &s.tokens, s.start, &s.block_table, s.sample.is_some(), s.num_draft_tokens, s.pending).hash(&mut hasher);
    }
    hasher.finish()
}

pub fn check_plan(plan: &StepPlan, config: &SchedulerConfig, factor: f64, scheduler: &Scheduler) {
    let budget = match config.pacing {
        Pacing::Global => ((config.max_num_batched_tokens as f64 * factor).round() as usize).max(MIN_STEP_BUDGET),
        _ => config.max_num_batched_tokens,
    };
    assert!(plan.num_tokens() <= budget.min(config.max_num_batched_tokens), "{} tokens of {budget}", plan.num_tokens());
    assert!(plan.sequences.len() <= config.max_num_seqs);
    let stats = scheduler.stats();
    assert_eq!(stats.prefill_tokens + stats.decode_tokens, plan.num_tokens());
    assert!(plan.num_tokens() <= stats.step_budget && stats.step_budget <= config.max_num_batched_tokens);
    let mut targets = HashSet::new();
    assert!(plan.offload.iter().all(|transfer| targets.insert(transfer.host)), "a host block is written once");
    assert!(plan.onload.iter().all(|transfer| !targets.contains(&transfer.host)), "nothing is read that the same step wrote");
    for s in &plan.sequences {
        assert!(!s.tokens.is_empty());
        assert_eq!(s.block_table.len(), (s.start + s.tokens.len()).div_ceil(config.block_size));
    }
}

/// A tenant by name, or a connection.
type Owner<'a> = (Option<&'a str>, Option<u64>);

/// Whom a cap binds, and with which cap.
fn owners(scenario: &Scenario, id: SequenceId) -> Vec<(Owner<'_>, Cap)> {
    let (request, caps) = (&scenario.requests[id.0 as usize], scenario.config.caps);
    let tenant = ((Some(request.tenant.unwrap_or("nobody")), None), caps.tenant);
    let connection = request.connection.map(|connection| ((None, Some(connection)), caps.connection));
    std::iter::once(tenant).chain(connection).collect()
}

/// No owner has had more tokens since its first request than its rate and the tolerance allow.
fn check_rates<'a>(scenario: &'a Scenario, id: SequenceId, now: Duration, tokens: &mut HashMap<Owner<'a>, (Duration, u32)>) {
    for (owner, cap) in owners(scenario, id) {
        let Some(rate) = cap.max_rate else { continue };
        let of_owner = |i: &usize| owners(scenario, SequenceId(*i as u64)).iter().any(|(other, _)| *other == owner);
        let first = || (0..scenario.requests.len()).filter(of_owner).map(|i| scenario.requests[i].arrival_ms).min();
        let (first, count) = tokens.entry(owner).or_insert_with(|| (Duration::from_millis(first().unwrap_or(0)), 0));
        *count += 1;
        let allowed = (now - *first + RATE_CAP_TOLERANCE).as_secs_f64() * rate + 1.0;
        assert!(f64::from(*count) <= allowed + 1e-3, "{owner:?} has {count} tokens at {now:?}, {allowed} are allowed");
    }
}

pub fn check_outcome(scenario: &Scenario, outcome: &Outcome) {
    for (i, request) in scenario.requests.iter().enumerate() {
        let Some((tokens, finish)) = outcome.outputs.get(&(i as u64)) else {
            assert!(request.prompt.len() >= scenario.limit(), "sequence {i} was refused");
            continue;
        };
        let (expected, reason) = reference(request, scenario.limit());
        if [&outcome.cancelled, &outcome.expired, &outcome.failed].iter().any(|ids| ids.contains(&(i as u64))) {
            assert_eq!(tokens[..], expected[..tokens.len()], "sequence {i}, cut short");
        } else {
            assert_eq!((tokens, *finish), (&expected, Some(reason)), "sequence {i}");
        }
    }
}
