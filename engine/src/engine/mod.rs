//! The handle that accepts requests and the loop that drives the steps.
//!
//! [`EngineCore`] is cheap to clone and never blocks its caller; one thread of its own plans, executes and hands tokens out.

mod constrain;
mod gate;
mod load;
mod memory;
mod rate;
mod request;
mod run;
mod submit;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    time::{Duration, Instant},
};

use gate::{EndRate, Gate};
use rate::RateMeter;
use run::{Command, Loop};

pub use load::{LoadError, LoadedModel, Served};
pub use request::{EmbedRequest, EngineError, FirstToken, GenerateRequest, Generation, LinkState, Origin, StepToken};

use crate::{
    config::EngineInfo,
    executor::Executor,
    health::Links,
    metrics::EngineMetrics,
    scheduler::{FinishReason, Scheduler, SchedulerStats, SequenceId},
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
    gate: Arc<Gate>,
    /// Requests that an empty engine takes.
    most_at_once: usize,
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
        mut scheduler: Scheduler,
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
        // The most that are ever let in at a time: as many as an empty engine takes.
        let most_at_once = scheduler.room_to_wait();
        let gate = Arc::new(Gate::new(most_at_once));
        scheduler.limit_steps_in_flight(executor.max_in_flight());
        let steps = Loop {
            scheduler,
            executor,
            in_flight: VecDeque::new(),
            links,
            live: HashMap::new(),
            commands,
            metrics,
            epoch,
            collected: epoch,
            health_factor,
            health_reported: Duration::ZERO,
            prompt_tokens: 0,
            prompt_tokens_cached: 0,
            generation_tokens: 0,
            reported: SchedulerStats::default(),
            gate: gate.clone(),
            handled: 0,
            ends: EndRate::default(),
            failures: 0,
        };
        std::thread::Builder::new().name("engine".to_owned()).spawn(move || {
            let _alive = alive;
            steps.run();
        })?;
        let shared =
            Arc::new(Shared { next_id: AtomicU64::new(0), draining: AtomicBool::new(false), alive: weak_alive, epoch, gate, most_at_once });
        Ok(Self { info: Arc::new(info), commands: CommandSender(sender), shared })
    }

    pub fn info(&self) -> &EngineInfo {
        &self.info
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
