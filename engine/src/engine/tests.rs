//! The loop over a device that has two steps at a time and is done with each when it pleases.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

use tokenflow_hint_api::{HintUrl, Subscriber};

use super::{EngineCore, EngineError, GenerateRequest, Generation};
use crate::{
    config::EngineInfo,
    executor::{Executor, ExecutorError},
    health::Links,
    metrics::EngineMetrics,
    sampling::{LogitAdjustments, SampledToken, SamplingParams},
    scheduler::{FinishReason, MAX_STEPS_IN_FLIGHT, Scheduler, SchedulerConfig, SequenceId, StepOutput, StepPlan},
};

const EOS: u32 = 1;

/// The token that follows `history`.
fn next_token(history: &[u32]) -> u32 {
    let hash = history.iter().fold(0xcbf2_9ce4u32, |hash, &token| (hash ^ token).wrapping_mul(0x0100_0193).rotate_left(9));
    if hash.is_multiple_of(41) { EOS } else { 2 + hash % 50 }
}

/// What a request for so many tokens gets, the token that ends it included.
fn reference(prompt: &[u32], max_tokens: usize) -> (Vec<u32>, FinishReason) {
    let mut tokens = prompt.to_vec();
    loop {
        tokens.push(next_token(&tokens));
        let output = &tokens[prompt.len()..];
        if output.last() == Some(&EOS) {
            return (output.to_vec(), FinishReason::Stop);
        }
        if output.len() == max_tokens {
            return (output.to_vec(), FinishReason::Length);
        }
    }
}

/// When the device is done with a step.
#[derive(Clone, Copy, PartialEq)]
enum Done {
    /// Sooner or later.
    Whenever,
    /// When it has the next one, unless nothing is to come.
    WithTheNext { last_position: usize },
}

#[derive(Default)]
struct Counts {
    submitted: AtomicUsize,
    collected: AtomicUsize,
    pending: AtomicUsize,
}

/// The executor's side of the device, which is a thread.
struct Device {
    plans: Sender<StepPlan>,
    outputs: Receiver<Result<StepOutput, ExecutorError>>,
    counts: Arc<Counts>,
}

impl Device {
    /// Fails in the step `failing`.
    fn new(done: Done, failing: Option<u64>) -> Self {
        Self::failing(done, failing.map_or(0..0, |step| step..step + 1))
    }

    /// Fails in these steps.
    fn failing(done: Done, failing: std::ops::Range<u64>) -> Self {
        let ((plans, incoming), (outgoing, outputs)) = (channel(), channel());
        thread::spawn(move || work(&incoming, &outgoing, done, &failing));
        Self { plans, outputs, counts: Arc::default() }
    }
}

impl Executor for Device {
    fn submit(&mut self, plan: &StepPlan) -> Result<(), ExecutorError> {
        let in_flight = self.counts.submitted.fetch_add(1, Relaxed) - self.counts.collected.load(Relaxed);
        assert!(in_flight < self.max_in_flight());
        let pending = plan.sequences.iter().filter(|s| s.pending.is_some());
        self.counts.pending.fetch_add(pending.count(), Relaxed);
        self.plans.send(plan.clone()).map_err(|_| broken(plan.step))
    }

    fn collect(&mut self) -> Result<StepOutput, ExecutorError> {
        self.counts.collected.fetch_add(1, Relaxed);
        self.outputs.recv().unwrap_or_else(|_| Err(broken(0)))
    }

    fn max_in_flight(&self) -> usize {
        MAX_STEPS_IN_FLIGHT
    }
}

fn broken(step: u64) -> ExecutorError {
    ExecutorError::Device { device: "late", reason: format!("step {step} came to nothing") }
}

fn work(plans: &Receiver<StepPlan>, outputs: &Sender<Result<StepOutput, ExecutorError>>, done: Done, failing: &std::ops::Range<u64>) {
    let mut histories: HashMap<SequenceId, Vec<u32>> = HashMap::new();
    let mut sampled: Vec<u32> = Vec::new();
    let mut waiting = VecDeque::new();
    while let Some(plan) = waiting.pop_front().or_else(|| plans.recv().ok()) {
        let mut output = StepOutput { step: plan.step, ..StepOutput::default() };
        let mut may_go_on = false;
        for s in &plan.sequences {
            let history = histories.entry(s.id).or_default();
            history.truncate(s.start);
            history.extend(&s.tokens);
            if let (Some(row), Some(last)) = (s.pending, history.last_mut()) {
                *last = sampled[row];
            }
            if let Some(sample) = &s.sample {
                assert!(s.pending.is_none() || !sample.params.depends_on_history());
                output.sampled.push((s.id, SampledToken { token: next_token(history), logprob: None, top: Vec::new() }));
            }
            let position = s.sample.as_ref().map(|sample| sample.output_position);
            may_go_on |= matches!(done, Done::WithTheNext { last_position } if position != Some(last_position));
        }
        sampled = output.sampled.iter().map(|(_, token)| token.token).collect();
        if may_go_on && waiting.is_empty() {
            match plans.recv_timeout(Duration::from_secs(60)) {
                Ok(next) => waiting.push_back(next),
                Err(RecvTimeoutError::Timeout) => panic!("step {} is done only when the next has been submitted", plan.step),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        // Now and then the host has time to plan, and now and then not.
        (0..sampled.first().map_or(0, |token| token % 7 * 200)).for_each(|_| thread::yield_now());
        let result = if failing.contains(&plan.step) { Err(broken(plan.step)) } else { Ok(output) };
        if outputs.send(result).is_err() {
            return;
        }
    }
}

fn start(device: Device, max_steps_in_flight: usize) -> (EngineCore, Arc<Counts>) {
    let config = SchedulerConfig { max_steps_in_flight, max_num_seqs: 4, enable_prefix_caching: false, ..SchedulerConfig::default() };
    let info = EngineInfo {
        max_model_len: config.max_model_len,
        vocab_size: 100,
        max_num_seqs: config.max_num_seqs,
        eos_token_ids: vec![EOS],
        ..EngineInfo::default()
    };
    let metrics = Arc::new(EngineMetrics::new("late", &info));
    let links = Links::new(Subscriber::spawn(HintUrl::None));
    let counts = device.counts.clone();
    (EngineCore::start(info, Scheduler::new(config), Box::new(device), links, metrics).unwrap(), counts)
}

fn request(seed: u32, max_tokens: usize) -> GenerateRequest {
    GenerateRequest::new((0..5 + seed % 9).map(|i| 2 + (seed * 31 + i * 7) % 50).collect(), max_tokens, SamplingParams::greedy())
}

fn penalised(seed: u32, max_tokens: usize) -> GenerateRequest {
    let adjustments = Some(Arc::new(LogitAdjustments { repetition_penalty: 1.5, ..LogitAdjustments::default() }));
    GenerateRequest { sampling: SamplingParams { adjustments, ..SamplingParams::greedy() }, ..request(seed, max_tokens) }
}

async fn whole(mut generation: Generation) -> Result<(Vec<u32>, FinishReason), EngineError> {
    let mut tokens = Vec::new();
    while let Some(token) = generation.next().await {
        let token = token?;
        tokens.push(token.token.token);
        if let Some(finish) = token.finish {
            assert!(generation.next().await.is_none(), "nothing follows the last");
            return Ok((tokens, finish));
        }
    }
    panic!("a stream ends with a reason");
}

#[tokio::test]
async fn a_lone_streams_next_step_is_the_devices_before_it_is_done_with_one() {
    let seed = (0..).find(|&seed| reference(&request(seed, 20).prompt, 20).1 == FinishReason::Length).unwrap();
    let (core, counts) = start(Device::new(Done::WithTheNext { last_position: 19 }, None), MAX_STEPS_IN_FLIGHT);
    let expected = reference(&request(seed, 20).prompt, 20);
    assert_eq!(whole(core.submit(request(seed, 20)).unwrap()).await.unwrap(), expected);
    assert_eq!((counts.submitted.load(Relaxed), counts.pending.load(Relaxed)), (20, 19));
}

#[tokio::test]
async fn tokens_are_the_same_with_one_step_in_flight_and_with_two() {
    for max_steps_in_flight in 1..=MAX_STEPS_IN_FLIGHT {
        let (core, counts) = start(Device::new(Done::Whenever, None), max_steps_in_flight);
        let requests: Vec<_> = (0..40).map(|i| if i % 10 == 9 { penalised(i, 20) } else { request(i, 5 + i as usize * 3 % 60) }).collect();
        let running: Vec<_> = requests.iter().map(|request| core.submit(request.clone()).unwrap()).collect();
        for (i, (request, mut generation)) in requests.iter().zip(running).enumerate() {
            let expected = reference(&request.prompt, request.max_tokens);
            if i % 8 == 3 {
                // It goes away with steps in flight.
                assert_eq!(generation.next().await.unwrap().unwrap().token.token, expected.0[0]);
                continue;
            }
            assert_eq!(whole(generation).await.unwrap(), expected, "request {i} with {max_steps_in_flight} steps in flight");
        }
        assert_eq!(counts.pending.load(Relaxed) > 0, max_steps_in_flight > 1);
    }
}

#[tokio::test]
async fn a_step_that_fails_ends_its_requests_and_the_next_are_served() {
    let (core, counts) = start(Device::new(Done::Whenever, Some(3)), MAX_STEPS_IN_FLIGHT);
    let seed = (0..).find(|&seed| reference(&request(seed, 50).prompt, 50).0.len() == 50).unwrap();
    let failed = whole(core.submit(request(seed, 50)).unwrap()).await.unwrap_err();
    assert!(failed.to_string().contains("step 3 came to nothing"), "{failed}");
    assert_eq!(whole(core.submit(request(seed, 50)).unwrap()).await.unwrap(), reference(&request(seed, 50).prompt, 50));
    assert_eq!(counts.submitted.load(Relaxed), counts.collected.load(Relaxed), "what was issued after it has been waited for");
}

#[tokio::test]
async fn an_engine_whose_device_is_gone_ends() {
    let (core, _) = start(Device::failing(Done::Whenever, 0..u64::MAX), MAX_STEPS_IN_FLIGHT);
    let mut ended = 0;
    while core.is_alive() {
        // Those that come too late are told so.
        let Ok(generation) = core.submit(request(ended, 5)) else { break };
        whole(generation).await.unwrap_err();
        ended += 1;
    }
    assert!(ended >= 16, "{ended} requests failed before");
}

#[tokio::test]
async fn everything_can_be_ended_with_steps_in_flight() {
    let (core, counts) = start(Device::new(Done::Whenever, None), MAX_STEPS_IN_FLIGHT);
    let seed = (0..).find(|&seed| reference(&request(seed, 300).prompt, 300).0.len() > 30).unwrap();
    let mut generation = core.submit(request(seed, 300)).unwrap();
    assert!(generation.next().await.unwrap().is_ok());
    core.abort_all("the test says so");
    while let Some(token) = generation.next().await {
        if let Err(error) = token {
            assert!(error.to_string().contains("the test says so"), "{error}");
        }
    }
    drop(generation);
    let again = whole(core.submit(request(seed, 10)).unwrap()).await.unwrap();
    assert_eq!(again.0, reference(&request(seed, 10).prompt, 10).0);
    let generation = core.submit(request(seed, 300)).unwrap();
    let alive = core.shared.alive.clone();
    drop((generation, core));
    while alive.strong_count() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(counts.submitted.load(Relaxed), counts.collected.load(Relaxed), "the last steps are waited for");
}
