//! Random clients against one engine for as long as one likes: well-behaved, rude, slow and malformed ones, all at once.
//!
//! In every pause of the traffic, and at the end, the engine must be as it was: no request, every KV block free, no descriptor and no memory
//! more. Meanwhile no answer may be a 500 and no stream may end without a reason.

mod client;
mod requests;
mod summary;
mod watch;

use std::{
    sync::{
        Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

pub use summary::Summary;

use crate::{daemon, http, random::Random};
use summary::Tally;
use watch::Watch;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long clients come.
    pub duration: Duration,
    /// The same seed gives each client the same sequence of requests.
    pub seed: u64,
    /// Clients at a time.
    pub clients: usize,
    /// Time between pauses, in which the engine must come to rest.
    pub pause_every: Duration,
}

impl Options {
    /// With as many pauses as tell a leak from noise.
    pub fn lasting(duration: Duration, seed: u64) -> Self {
        Self { duration, seed, clients: 16, pause_every: (duration / 12).clamp(Duration::from_secs(3), Duration::from_secs(60)) }
    }
}

/// What the engine is started with: the demo model with too few blocks and seats for everybody, so that requests wait and are preempted.
const ENGINE_FLAGS: &[&str] = &[
    "--hint-url",
    "none",
    "--max-model-len",
    "384",
    "--num-gpu-blocks-override",
    "56",
    "--max-num-seqs",
    "20",
    "--max-num-batched-tokens",
    "256",
    "--scheduling-policy",
    "priority",
    "--speculative-config",
    r#"{"method": "ngram", "num_speculative_tokens": 3}"#,
    "--disable-log-requests",
];

/// Runs it; `progress` is told each pause's one-line finding.
///
/// # Errors
/// When the engine cannot be started or dies. What it did wrong is in the summary.
pub fn run(options: &Options, mut progress: impl FnMut(&str)) -> anyhow::Result<Summary> {
    let mut engine = daemon::engine(ENGINE_FLAGS)?;
    let server = http::address(&engine.url)?;
    let began = Instant::now();
    let deadline = began + options.duration;
    let tally = Mutex::new(Tally::default());
    let stop = AtomicBool::new(false);
    // Held by clients while they ask; taken by the watch to pause them all.
    let traffic = RwLock::new(());
    let mut watch = Watch::new(&engine)?;

    std::thread::scope(|scope| {
        for client in 0..options.clients {
            let (tally, stop, traffic) = (&tally, &stop, &traffic);
            let mut random = Random::new(options.seed.wrapping_add(client as u64));
            scope.spawn(move || {
                while !stop.load(Relaxed) {
                    let asking = traffic.read().unwrap_or_else(PoisonError::into_inner);
                    let event = client::act(server, &mut random);
                    drop(asking);
                    tally.lock().unwrap_or_else(PoisonError::into_inner).add(event);
                    std::thread::sleep(Duration::from_millis(random.below(30)));
                }
            });
        }
        let result = (|| -> anyhow::Result<()> {
            while Instant::now() < deadline {
                std::thread::sleep(options.pause_every.min(deadline.saturating_duration_since(Instant::now())));
                let _paused = traffic.write().unwrap_or_else(PoisonError::into_inner);
                progress(&watch.rest(&engine, began.elapsed())?);
            }
            Ok(())
        })();
        stop.store(true, Relaxed);
        result
    })?;

    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut summary = Summary::new(options, tally, watch, began.elapsed());
    engine.signal(libc::SIGTERM);
    match engine.wait(Duration::from_secs(40)) {
        Ok(status) if status.success() => {}
        Ok(status) => summary.violations.push(format!("the engine ended with {status}: {}", engine.log())),
        Err(error) => summary.violations.push(error.to_string()),
    }
    Ok(summary)
}
