use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use super::{
    AddError, NewSequence, Pacing, SchedulerConfig, SchedulerStats, SequenceId, SequenceUpdate, StepOutput, StepPlan, pacing::Wait,
    running::Sequence,
};
use crate::kv::BlockPool;

/// The queues and the block pool. The engine's loop is: `add` and `cancel` what came in, `plan`, execute, `apply`.
///
/// One step is in flight at a time. Sequences may be added and cancelled while it is.
#[derive(Clone, Debug)]
pub struct Scheduler {
    pub(super) config: SchedulerConfig,
    pub(super) pool: BlockPool,
    /// Sequences that hold blocks, in order of arrival.
    pub(super) running: Vec<Sequence>,
    /// Sequences that hold none, in order of arrival: preempted ones stand where they came, before all that were never started.
    pub(super) waiting: VecDeque<Sequence>,
    /// Preempted while a step is planned; back in `waiting` when the plan is done, so that no step both preempts and readmits one.
    pub(super) preempted: Vec<Sequence>,
    /// Arrivals so far.
    next_order: u64,
    /// Whose turn it was last, where the budget is too small for all decodes.
    pub(super) last_decoded: u64,
    pub(super) next_step: u64,
    /// The step that the executor has; nothing of it may be freed before it comes back.
    pub(super) in_flight: Option<u64>,
    /// Who sat the last plan out, for those who ask by name.
    pub(super) paced: HashSet<SequenceId>,
    /// When the first of them may run again.
    pub(super) wakeup: Option<Duration>,
    /// What the last plan used; the rest of the fields are filled in when asked for.
    pub(super) last: SchedulerStats,
}

impl Scheduler {
    /// # Panics
    /// When a limit is 0 or the rate cap is not a positive number: the engine's configuration checks them first.
    pub fn new(config: SchedulerConfig) -> Self {
        assert!(config.max_num_batched_tokens > 0, "max_num_batched_tokens is 0");
        assert!(config.max_num_seqs > 0, "max_num_seqs is 0");
        assert!(config.stream_rate_cap.is_none_or(|rate| rate.is_normal() && rate > 0.0), "stream_rate_cap is not a positive number");
        Self {
            pool: BlockPool::new(config.num_blocks, config.block_size),
            running: Vec::new(),
            waiting: VecDeque::new(),
            preempted: Vec::new(),
            next_order: 1,
            last_decoded: 0,
            next_step: 0,
            in_flight: None,
            paced: HashSet::new(),
            wakeup: None,
            last: SchedulerStats { step_budget: config.max_num_batched_tokens, ..SchedulerStats::default() },
            config,
        }
    }

    /// Queues a sequence behind all that came before it.
    ///
    /// # Errors
    /// When it could never run, however empty the engine is, or too many wait already.
    pub fn add(&mut self, new: NewSequence) -> Result<(), AddError> {
        let (prompt, max_model_len, capacity) = (new.prompt.len(), self.config.max_model_len, self.pool.capacity());
        if prompt == 0 {
            return Err(AddError::EmptyPrompt);
        }
        if prompt >= max_model_len {
            return Err(AddError::ContextLength { prompt, max_model_len });
        }
        if prompt > capacity {
            return Err(AddError::KvCacheTooSmall { prompt, capacity });
        }
        if let Some(max_waiting) = self.config.max_waiting.filter(|&max| self.waiting.len() >= max) {
            return Err(AddError::QueueFull { max_waiting });
        }
        // The last token of a sequence is never fed back, so it needs no slot.
        let limit = max_model_len.min(capacity + 1);
        self.waiting.push_back(Sequence::new(new, self.next_order, limit));
        self.next_order += 1;
        Ok(())
    }

    /// Forgets a sequence; no update comes for it any more. Its blocks are free at once, or after the step in flight if it is in it.
    /// False when it is not (or no longer) here.
    pub fn cancel(&mut self, id: SequenceId) -> bool {
        self.paced.remove(&id);
        if let Some(i) = self.waiting.iter().position(|s| s.id == id) {
            self.waiting.remove(i);
            return true;
        }
        let Some(i) = self.running.iter().position(|s| s.id == id && !s.cancelled) else {
            return false;
        };
        if self.running[i].num_scheduled_tokens > 0 {
            self.running[i].cancelled = true;
        } else {
            self.running.remove(i).block_table.release(&mut self.pool);
        }
        true
    }

    /// Takes in what a step computed and sampled.
    ///
    /// # Panics
    /// When `plan` is not the step in flight or `output` is not its answer: a bug of the executor.
    pub fn apply(&mut self, plan: &StepPlan, output: StepOutput, now: Duration) -> Vec<SequenceUpdate> {
        assert_eq!(self.in_flight.take(), Some(plan.step), "a step is applied that is not in flight");
        assert_eq!(output.step, plan.step, "the executor answered another step");
        let Self { running, pool, config, .. } = self;
        let mut sampled = output.sampled.into_iter();
        let mut updates = Vec::with_capacity(sampled.len());
        running.retain_mut(|sequence| {
            let samples = sequence.samples();
            sequence.num_computed_tokens += std::mem::take(&mut sequence.num_scheduled_tokens);
            let mut finish = None;
            if samples {
                let (id, token) = sampled.next().expect("the executor samples for every sequence that asks");
                assert_eq!(id, sequence.id, "the executor keeps the order of the plan");
                finish = sequence.push(token.token);
                sequence.pacing.token_sent(config.stream_rate_cap, now);
                if !sequence.cancelled {
                    updates.push(sequence.update(token, finish));
                }
            }
            let done = finish.is_some() || sequence.cancelled;
            if done {
                sequence.block_table.release(pool);
            }
            !done
        });
        updates
    }

    /// Drops the sequences of the step in flight, which the executor failed to compute, and names them. All others go on.
    pub fn fail_step(&mut self) -> Vec<SequenceId> {
        self.in_flight = None;
        self.drop_running(|s| s.num_scheduled_tokens > 0)
    }

    /// Drops everything and names it. A step in flight must not be applied any more.
    pub fn abort_all(&mut self) -> Vec<SequenceId> {
        self.in_flight = None;
        let mut dropped = self.drop_running(|_| true);
        dropped.extend(self.waiting.drain(..).map(|s| s.id));
        dropped
    }

    fn drop_running(&mut self, drop: impl Fn(&Sequence) -> bool) -> Vec<SequenceId> {
        let Self { running, pool, .. } = self;
        let dropped = running.extract_if(.., |s| drop(s));
        let released = dropped.map(|mut s| {
            s.block_table.release(pool);
            s
        });
        released.filter(|s| !s.cancelled).map(|s| s.id).collect()
    }

    /// After a `plan` in which streams sat out: when, on the clock of `now`, to plan again even if nothing else happens.
    pub fn next_wakeup(&self, now: Duration) -> Option<Duration> {
        self.wakeup.map(|wakeup| wakeup.max(now))
    }

    /// Whether the sequence sat the last plan out because its link is behind.
    pub fn is_paced(&self, id: SequenceId) -> bool {
        self.paced.contains(&id)
    }

    /// Changes the mode from the next plan on.
    pub fn set_pacing(&mut self, pacing: Pacing) {
        self.config.pacing = pacing;
    }

    /// Whether there is nothing left to do.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    pub fn stats(&self) -> SchedulerStats {
        SchedulerStats {
            running: self.running.len(),
            waiting: self.waiting.len(),
            paced: self.paced.len(),
            kv_blocks: self.pool.num_blocks(),
            kv_blocks_used: self.pool.num_blocks() - self.pool.num_free(),
            max_num_batched_tokens: self.config.max_num_batched_tokens,
            ..self.last
        }
    }

    /// Checks that the queues and the pool agree; for tests.
    ///
    /// # Errors
    /// One sentence on what is wrong.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.pool.check_invariants(self.running.iter().chain(&self.waiting).map(|s| &s.block_table))?;
        if let Some(s) = self.waiting.iter().find(|s| !s.block_table.is_empty() || s.num_computed_tokens > 0) {
            return Err(format!("sequence {} waits and holds blocks", s.id.0));
        }
        for s in &self.running {
            let written = s.num_computed_tokens..s.num_computed_tokens + s.num_scheduled_tokens;
            let mut blocks = written.map(|position| s.block_table.blocks()[position / self.pool.block_size()]);
            if let Some(block) = blocks.find(|&block| self.pool.ref_count(block) != 1) {
                return Err(format!("sequence {} writes block {}, which is shared", s.id.0, block.0));
            }
        }
        if self.running.len() > self.config.max_num_seqs {
            return Err(format!("{} sequences run", self.running.len()));
        }
        if !self.running.is_sorted_by_key(|s| s.order) || !self.waiting.iter().is_sorted_by_key(|s| s.order) {
            return Err("a queue is out of order".into());
        }
        Ok(())
    }

    pub(super) fn running_index(&self, order: u64) -> Option<usize> {
        self.running.binary_search_by_key(&order, |s| s.order).ok()
    }

    pub(super) fn note_wait(&mut self, id: SequenceId, wait: Option<Wait>) {
        if let Some(wait) = wait {
            if wait.for_credit {
                self.paced.insert(id);
            }
            self.wakeup = Some(self.wakeup.map_or(wait.until, |wakeup| wakeup.min(wait.until)));
        }
    }

    pub(super) fn preempt(&mut self, i: usize) {
        let mut sequence = self.running.remove(i);
        sequence.preempt(&mut self.pool);
        self.preempted.push(sequence);
        self.last.preemptions += 1;
    }

    pub(super) fn requeue_preempted(&mut self) {
        for sequence in self.preempted.drain(..) {
            let place = self.waiting.partition_point(|s| s.order < sequence.order);
            self.waiting.insert(place, sequence);
        }
    }
}
