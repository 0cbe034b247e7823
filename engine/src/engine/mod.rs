//! The handle that accepts requests and the loop that drives the steps.
//!
//! [`EngineCore`] is cheap to clone and never blocks its caller; one thread of its own plans, executes and hands tokens out.

mod constrain;
mod load;
mod memory;
mod rate;
mod request;
mod run;

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    time::{Duration, Instant},
};

use rate::RateMeter;
use run::{Command, Live, Loop, Progress};

pub use load::{LoadError, LoadedModel, Served};
pub use request::{EngineError, FirstToken, GenerateRequest, Generation, LinkState, StepToken};

use crate::{
    config::EngineInfo,
    executor::Executor,
    health::{Links, StreamMeter},
    metrics::EngineMetrics,
    sampling::SamplingParams,
    scheduler::{FinishReason, NewSequence, Scheduler, SequenceId},
};

/// Accepts requests. Cheap to clone; when the last handle and the last generation are gone, the loop ends.
#[derive(Clone)]
pub struct EngineCore {
    info: Arc<EngineInfo>,
    commands: CommandSender,
    shared: Arc<Shared>,
}

struct Shared {
    next_id: AtomicU64,
    draining: AtomicBool,
    /// Held by the loop's thread for as long as it lives, so that a panic shows too.
    alive: Weak<()>,
    epoch: Instant,
}

#[derive(Clone)]
struct CommandSender(mpsc::Sender<Command>);

impl CommandSender {
    fn end(&self, id: SequenceId, reason: FinishReason) {
        // A loop that has ended has nothing left to end.
        let _ = self.0.send(Command::End(id, reason));
    }
}

impl EngineCore {
    /// Starts the loop on a thread of its own.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        info: EngineInfo,
        scheduler: Scheduler,
        executor: Box<dyn Executor>,
        links: Links,
        metrics: Arc<EngineMetrics>,
    ) -> std::io::Result<Self> {
        let (sender, commands) = mpsc::channel();
        let epoch = Instant::now();
        let alive = Arc::new(());
        let weak_alive = Arc::downgrade(&alive);
        let health_factor = Arc::new(AtomicU64::new(1f64.to_bits()));
        metrics.set_hint_source(links.status(health_factor.clone()));
        let steps = Loop {
            scheduler,
            executor,
            links,
            live: HashMap::new(),
            commands,
            metrics,
            epoch,
            health_factor,
            health_reported: Duration::ZERO,
            prompt_tokens: 0,
            prompt_tokens_cached: 0,
            generation_tokens: 0,
            preemptions: 0,
        };
        std::thread::Builder::new().name("engine".to_owned()).spawn(move || {
            let _alive = alive;
            steps.run();
        })?;
        let shared = Arc::new(Shared { next_id: AtomicU64::new(0), draining: AtomicBool::new(false), alive: weak_alive, epoch });
        Ok(Self { info: Arc::new(info), commands: CommandSender(sender), shared })
    }

    pub fn info(&self) -> &EngineInfo {
        &self.info
    }

    /// Queues a request. Its tokens, or the error that ended it, come out of the [`Generation`].
    ///
    /// # Errors
    /// When the engine drains or has stopped.
    pub fn submit(&self, request: GenerateRequest) -> Result<Generation, EngineError> {
        if self.shared.draining.load(Relaxed) {
            return Err(EngineError::Draining);
        }
        let id = SequenceId(self.shared.next_id.fetch_add(1, Relaxed));
        let arrival = self.shared.epoch.elapsed();
        let mut stop_token_ids = request.stop_token_ids;
        if !request.ignore_eos || request.grammar.is_some() {
            stop_token_ids.extend(&self.info.eos_token_ids);
        }
        let (sender, tokens) = tokio::sync::mpsc::unbounded_channel();
        let live = Live {
            tokens: sender,
            meter: request.stream.clone(),
            prompt_tokens: request.prompt.len(),
            max_tokens: request.max_tokens,
            arrival,
            progress: Progress::default(),
            matcher: request.grammar.as_ref().map(|grammar| grammar.matcher()),
        };
        let sequence = NewSequence {
            id,
            prompt: request.prompt,
            max_tokens: request.max_tokens,
            stop_token_ids,
            sampling: SamplingParams { constrained: request.grammar.is_some(), ..request.sampling },
            streamed: request.stream.is_some(),
            arrival,
            priority: request.priority,
            cache_salt: request.cache_salt,
            fork_of: None,
            deadline: request.timeout.map(|timeout| arrival + timeout),
        };
        self.commands
            .0
            .send(Command::Submit(Box::new(sequence), Box::new(live)))
            .map_err(|_| EngineError::Stopped(LOOP_ENDED.to_owned()))?;
        Ok(Generation::new(id, tokens, request.stream, self.commands.clone()))
    }

    /// Queues one request as many times as there are seeds: one prompt, each generation with its own random numbers. Where it is streamed,
    /// each has a meter of its own on the same connection ([`Generation::meter`]); the first has the request's.
    ///
    /// # Errors
    /// As [`EngineCore::submit`]: then none is queued.
    pub fn submit_group(&self, request: GenerateRequest, seeds: &[u64]) -> Result<Vec<Generation>, EngineError> {
        let one = |(i, &seed): (usize, &u64)| {
            let mut request = request.clone();
            request.sampling.seed = seed;
            if i > 0 {
                request.stream = request.stream.map(|meter| Arc::new(StreamMeter::new(meter.connection().clone())));
            }
            self.submit(request)
        };
        seeds.iter().enumerate().map(one).collect()
    }

    /// From now on new requests are refused; those accepted go on.
    pub fn drain(&self) {
        self.shared.draining.store(true, Relaxed);
    }

    /// Ends every request that is still running with an error that says why.
    pub fn abort_all(&self, reason: &str) {
        let _ = self.commands.0.send(Command::AbortAll(EngineError::Stopped(reason.to_owned())));
    }

    /// Whether the loop runs; false after its thread died.
    pub fn is_alive(&self) -> bool {
        self.shared.alive.strong_count() > 0
    }
}

const LOOP_ENDED: &str = "its loop has ended; see the log";
