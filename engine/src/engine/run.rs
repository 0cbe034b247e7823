use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    time::{Duration, Instant},
};

use tokio::sync::mpsc::UnboundedSender;

use super::{EndRate, EngineError, FirstToken, Gate, LinkState, RateMeter, StepToken, constrain::fill_masks};
use crate::{
    executor::{Executor, ExecutorError},
    grammar::Matcher,
    health::{Links, StreamMeter},
    metrics::{EngineMetrics, RequestStats, StepStats},
    scheduler::{
        Expired, ExpiryCause, FinishReason, Network, NewSequence, Scheduler, SchedulerStats, SequenceId, SequenceUpdate, StepPlan,
    },
};

pub(super) enum Command {
    Submit(Box<NewSequence>, Box<Live>),
    /// The client went away, or the text is complete.
    End(SequenceId, FinishReason),
    /// Ends every request with an error that carries the reason; the loop goes on.
    AbortAll(EngineError),
}

/// A request on its way through the loop.
pub(super) struct Live {
    pub(super) tokens: UnboundedSender<Result<StepToken, EngineError>>,
    pub(super) meter: Option<Arc<StreamMeter>>,
    pub(super) prompt_tokens: usize,
    pub(super) max_tokens: usize,
    pub(super) arrival: Duration,
    pub(super) progress: Progress,
    /// The output's place in its grammar, where one rules.
    pub(super) matcher: Option<Matcher>,
}

/// What a request has had so far, for its tokens' link state and its metrics.
#[derive(Default)]
pub(super) struct Progress {
    queued: Duration,
    cached_tokens: usize,
    preemptions: u32,
    first_token_at: Option<Duration>,
    last_token_at: Option<Duration>,
    output_tokens: usize,
    rate: RateMeter,
}

/// A step that the executor has.
pub(super) struct InFlight {
    plan: StepPlan,
    submitted: Instant,
}

/// Plans, executes and hands tokens out until every [`super::EngineCore`] handle is gone.
pub(super) struct Loop {
    pub(super) scheduler: Scheduler,
    pub(super) executor: Box<dyn Executor>,
    /// Steps that the executor has, the oldest first.
    pub(super) in_flight: VecDeque<InFlight>,
    pub(super) links: Links,
    pub(super) live: HashMap<SequenceId, Live>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) metrics: Arc<EngineMetrics>,
    pub(super) epoch: Instant,
    /// When the last step came back.
    pub(super) collected: Instant,
    /// Read at scrapes, from other threads: the bits of an `f64`.
    pub(super) health_factor: Arc<AtomicU64>,
    /// When `health_factor` was last refreshed.
    pub(super) health_reported: Duration,
    /// Since the last report.
    pub(super) prompt_tokens: usize,
    pub(super) prompt_tokens_cached: usize,
    pub(super) generation_tokens: usize,
    /// As of the last report.
    pub(super) reported: SchedulerStats,
    pub(super) gate: Arc<Gate>,
    /// Requests taken in since the start.
    pub(super) handled: u64,
    pub(super) ends: EndRate,
    /// Steps that the device failed one after the other.
    pub(super) failures: u32,
}

impl Live {
    fn finished(&self, reason: FinishReason, now: Duration) -> RequestStats {
        let first = self.progress.first_token_at.unwrap_or(now);
        let e2e = now.saturating_sub(self.arrival);
        RequestStats {
            reason,
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.progress.cached_tokens,
            output_tokens: self.progress.output_tokens,
            max_tokens: self.max_tokens,
            e2e,
            queued: self.progress.queued,
            prefill: first.saturating_sub(self.arrival + self.progress.queued),
            decode: now.saturating_sub(first),
            preemptions: self.progress.preemptions,
        }
    }
}

impl Loop {
    pub(super) fn run(mut self) {
        while self.failures < MAX_FAILURES && self.take_commands() {
            let now = self.epoch.elapsed();
            self.links.refresh(now);
            self.expire(now);
            let plan = self.scheduler.plan(now, &self.links);
            self.open_gate(now);
            match plan {
                Some(mut plan) => {
                    self.constrain(&mut plan);
                    self.submit(plan);
                    // The device runs it while the next is planned.
                    if self.in_flight.len() == self.scheduler.max_steps_in_flight() {
                        self.collect();
                    }
                }
                None if !self.in_flight.is_empty() => self.collect(),
                None if self.wait() => {}
                None => break,
            }
        }
        self.drain();
        if self.failures >= MAX_FAILURES {
            tracing::error!(
                "the device has failed {MAX_FAILURES} steps in a row; the engine ends, so that whoever asks for its health restarts it"
            );
            self.abort_all(&EngineError::Stopped("the device fails step after step".to_owned()));
        }
    }

    /// Takes what has arrived. False when every handle is gone.
    fn take_commands(&mut self) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.handle(command),
                Err(mpsc::TryRecvError::Empty) => return true,
                Err(mpsc::TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Nothing can run: waits for a command, or until paced streams are to be looked at again. False when every handle is gone.
    fn wait(&mut self) -> bool {
        self.report(Duration::ZERO, 0);
        let now = self.epoch.elapsed();
        let received = if self.scheduler.is_empty() {
            self.commands.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected)
        } else {
            let at = self.scheduler.next_wakeup(now).unwrap_or(now + RETRY_INTERVAL);
            let at = self.scheduler.next_deadline().map_or(at, |deadline| at.min(deadline));
            self.commands.recv_timeout(at.saturating_sub(now))
        };
        match received {
            Ok(command) => self.handle(command),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return false,
        }
        true
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Submit(sequence, live) => {
                let id = sequence.id;
                self.handled += 1;
                if let Err(error) = self.scheduler.add(*sequence) {
                    let _ = live.tokens.send(Err(EngineError::TooLong(error.to_string())));
                    return;
                }
                if let Some(meter) = &live.meter {
                    self.links.open(id, meter.clone());
                }
                self.live.insert(id, *live);
            }
            Command::End(id, reason) => {
                if self.scheduler.cancel(id) {
                    self.close(id, reason);
                }
            }
            Command::AbortAll(error) => self.abort_all(&error),
        }
    }

    fn constrain(&mut self, plan: &mut StepPlan) {
        for (id, error) in fill_masks(plan, &mut self.live) {
            self.end_with_error(id, &EngineError::Step(error.to_string()));
        }
    }

    /// Ends one request; the rest of the step goes on.
    fn end_with_error(&mut self, id: SequenceId, error: &EngineError) {
        self.scheduler.cancel(id);
        self.fail(id, error);
    }

    /// Says how many more requests may come, before the step keeps the loop busy.
    fn open_gate(&self, now: Duration) {
        let waiting = self.scheduler.stats().waiting;
        self.gate.update(self.handled, self.scheduler.queues(), waiting, self.ends.time_to_serve(waiting, now));
    }

    /// Ends requests whose time is up.
    fn expire(&mut self, now: Duration) {
        for Expired { id, cause, output_tokens } in self.scheduler.expire(now) {
            let error = match cause {
                ExpiryCause::Deadline => EngineError::TimedOut { output_tokens },
                ExpiryCause::Queue => EngineError::Overloaded {
                    reason: "The request waited for as long as the server lets requests wait and was not started".to_owned(),
                    retry_after: self.ends.time_to_serve(self.scheduler.stats().waiting, now),
                },
            };
            if let Some(live) = self.live.get(&id) {
                let _ = live.tokens.send(Err(error));
            }
            self.close(id, FinishReason::Abort);
        }
    }

    fn submit(&mut self, plan: StepPlan) {
        let submitted = Instant::now();
        match self.executor.submit(&plan) {
            Ok(()) => self.in_flight.push_back(InFlight { plan, submitted }),
            Err(error) => {
                self.fail_step(plan.step, &error);
                // What the step before sampled is not the device's latest any more.
                while !self.in_flight.is_empty() {
                    self.collect();
                }
                self.report(submitted.elapsed(), 0);
            }
        }
    }

    /// Waits for the oldest step and hands its tokens out.
    fn collect(&mut self) {
        let Some(InFlight { plan, submitted }) = self.in_flight.pop_front() else { return };
        match self.executor.collect() {
            Ok(mut output) => {
                self.failures = 0;
                let now = self.epoch.elapsed();
                let mut pooled: HashMap<SequenceId, Vec<f32>> = output.pooled.drain(..).collect();
                for update in self.scheduler.apply(&plan, output, now) {
                    let embedding = pooled.remove(&update.id);
                    self.generation_tokens += usize::from(embedding.is_none());
                    self.hand_out(update, embedding, now);
                }
            }
            Err(error) => {
                self.fail_step(plan.step, &error);
                self.drain();
            }
        }
        // The device begins with a step when it is done with the one before.
        let began = submitted.max(self.collected);
        self.collected = Instant::now();
        self.report(self.collected - began, plan.num_tokens());
    }

    fn fail_step(&mut self, step: u64, error: &ExecutorError) {
        tracing::error!(step, %error, "step failed; its requests end with an error");
        self.failures += u32::from(matches!(error, ExecutorError::Device { .. }));
        let reason = EngineError::Step(error.to_string());
        for id in self.scheduler.fail_step(step) {
            self.fail(id, &reason);
        }
    }

    /// Waits for what the executor has and uses none of it.
    fn drain(&mut self) {
        for InFlight { plan, .. } in std::mem::take(&mut self.in_flight) {
            if let Err(error) = self.executor.collect() {
                tracing::warn!(step = plan.step, %error, "a step failed that nobody waits for");
            }
        }
    }

    fn abort_all(&mut self, error: &EngineError) {
        for id in self.scheduler.abort_all() {
            self.fail(id, error);
        }
        self.drain();
    }

    fn fail(&mut self, id: SequenceId, error: &EngineError) {
        self.links.close(id);
        if let Some(live) = self.live.remove(&id) {
            let _ = live.tokens.send(Err(error.clone()));
            self.metrics.failed();
        }
    }

    fn hand_out(&mut self, mut update: SequenceUpdate, embedding: Option<Vec<f32>>, now: Duration) {
        if embedding.is_some() {
            update.finish = Some(FinishReason::Stop);
        }
        let health = self.links.health(update.id);
        let Some(live) = self.live.get_mut(&update.id) else { return };
        if let (Some(matcher), None) = (&mut live.matcher, update.finish)
            && let Err(error) = matcher.commit(update.token.token)
        {
            self.end_with_error(update.id, &EngineError::Step(error.to_string()));
            return;
        }
        let progress = &mut live.progress;
        if let Some(queued) = update.queued {
            progress.queued = queued;
        }
        let since_arrival = now.saturating_sub(live.arrival);
        let first = match progress.last_token_at {
            None => {
                let cached_tokens = update.cached_tokens.unwrap_or(0);
                progress.first_token_at = Some(now);
                progress.cached_tokens = cached_tokens;
                self.prompt_tokens += live.prompt_tokens;
                self.prompt_tokens_cached += cached_tokens;
                self.metrics.first_token(since_arrival);
                Some(FirstToken { queued: progress.queued, since_arrival, cached_tokens })
            }
            Some(last) => {
                // Of the tokens of one step, only the first made the client wait.
                if last < now {
                    self.metrics.inter_token(now - last);
                }
                None
            }
        };
        progress.last_token_at = Some(now);
        progress.output_tokens += usize::from(embedding.is_none());
        let rate = progress.rate.count(now);
        let link = LinkState { health, rate, paced: update.paced };
        if let Some(meter) = &live.meter {
            meter.token_made();
        }
        // A receiver that is gone has sent a cancel.
        let _ = live.tokens.send(Ok(StepToken {
            token: update.token,
            finish: update.finish,
            link,
            first,
            embedding,
            prompt_logprobs: update.prompt_logprobs,
        }));
        if let Some(reason) = update.finish {
            live.progress.preemptions = update.preemptions;
            self.close(update.id, reason);
        }
    }

    fn close(&mut self, id: SequenceId, reason: FinishReason) {
        self.links.close(id);
        let Some(live) = self.live.remove(&id) else { return };
        let now = self.epoch.elapsed();
        self.ends.count(now);
        self.metrics.finished(&live.finished(reason, now));
    }

    /// Counts a step of `computed_tokens` that took so long; no time where there was none.
    fn report(&mut self, took: Duration, computed_tokens: usize) {
        let (stats, last) = (self.scheduler.stats(), self.reported);
        self.metrics.step(
            &StepStats {
                running: stats.running,
                waiting: stats.waiting,
                kv_cache_usage: stats.kv_usage(),
                paced: stats.paced,
                undelivered_bytes: self.links.undelivered_bytes(),
                parked: stats.parked,
                offloaded: stats.offloaded,
                host_blocks: stats.host_blocks_used,
                offloaded_blocks: stats.offloaded_blocks - last.offloaded_blocks,
                onloaded_blocks: stats.onloaded_blocks - last.onloaded_blocks,
                tenant_capped: stats.tenant_capped,
                connection_capped: stats.connection_capped,
                token_budget: stats.step_budget,
                computed_tokens,
                prompt_tokens: std::mem::take(&mut self.prompt_tokens),
                prompt_tokens_cached: std::mem::take(&mut self.prompt_tokens_cached),
                generation_tokens: std::mem::take(&mut self.generation_tokens),
                preemptions: (stats.preemptions - last.preemptions) as usize,
                prefix_cache_queries: (stats.prefix_cache_queries - last.prefix_cache_queries) as usize,
                prefix_cache_hits: (stats.prefix_cache_hits - last.prefix_cache_hits) as usize,
                drafts: stats.drafts - last.drafts,
                draft_tokens: stats.draft_tokens - last.draft_tokens,
                accepted_draft_tokens: stats.accepted_draft_tokens - last.accepted_draft_tokens,
            },
            took,
        );
        self.reported = stats;
        let now = self.epoch.elapsed();
        if took.is_zero() || now >= self.health_reported + HEALTH_REPORT_INTERVAL {
            self.health_reported = now;
            self.health_factor.store(self.links.health_factor().to_bits(), Relaxed);
        }
    }
}

/// The aggregate over all streams is for a person's eyes, except under `--pacing global`: not worth computing in every step.
const HEALTH_REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// A device that has failed so many steps in a row is not coming back: after an illegal access a GPU's driver refuses everything.
const MAX_FAILURES: u32 = 16;

/// When to try again if sequences are there and none could be planned, without a reason to wait for.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);
