use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use super::{
    AddError, BlockCopy, BlockTransfer, MAX_STEPS_IN_FLIGHT, NewSequence, Pacing, SchedulerConfig, SchedulerStats, SchedulingPolicy,
    SequenceId,
    caps::{Accounts, Capped, FullQueues},
    flight::InFlight,
    pacing::{StreamPacing, Wait},
    queued::{Fork, Rank, Sequence, cache_scope},
};
use crate::kv::{BlockPool, HostPool};

/// A sequence that ended because its time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    pub id: SequenceId,
    pub cause: ExpiryCause,
    pub output_tokens: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiryCause {
    /// [`NewSequence::deadline`].
    Deadline,
    /// [`NewSequence::start_by`], before it was started.
    Queue,
}

/// The queues and the block pool. The engine's loop is: `add` and `cancel` what came in, `plan`, execute, `apply`.
///
/// Steps are applied in the order in which they were planned. Sequences may be added and cancelled while steps are in flight.
#[derive(Clone, Debug)]
pub struct Scheduler {
    pub(super) config: SchedulerConfig,
    pub(super) pool: BlockPool,
    pub(super) host: HostPool,
    /// What tenants and connections have, where that is capped.
    pub(super) accounts: Accounts,
    /// Sequences that hold blocks, by rank.
    pub(super) running: Vec<Sequence>,
    /// Sequences that hold none, by rank: preempted ones stand where they came.
    pub(super) waiting: VecDeque<Sequence>,
    /// Preempted while a step is planned; back in `waiting` when the plan is done, so that no step both preempts and readmits one.
    pub(super) preempted: Vec<Sequence>,
    /// Those that end with a step in flight, while the next is planned.
    pub(super) ending: Vec<Sequence>,
    /// Arrivals so far.
    next_arrival: u64,
    /// Block copies for the step that is being planned.
    pub(super) copies: Vec<BlockCopy>,
    /// Copies to host memory and back, for the same.
    pub(super) offload: Vec<BlockTransfer>,
    pub(super) onload: Vec<BlockTransfer>,
    /// Seats that the running sequences take, see `seats`, and when that was counted last.
    pub(super) seats: f64,
    pub(super) looked_at: Duration,
    /// Seconds that a prompt's token takes to compute, of late.
    pub(super) prefill_token_s: Option<f64>,
    /// Whether the last plan left sequences waiting for want of room, so that those that come wait too.
    pub(super) left_waiting: bool,
    /// No sequence's deadline is earlier than this.
    next_deadline: Option<Duration>,
    /// Whose turn it was last, where the budget is too small for all decodes.
    pub(super) last_decoded: Rank,
    pub(super) next_step: u64,
    /// The steps that the executor has, the oldest first.
    pub(super) in_flight: VecDeque<InFlight>,
    /// Who sat the last plan out, for those who ask by name.
    pub(super) paced: HashSet<SequenceId>,
    /// When the first of them may run again.
    pub(super) wakeup: Option<Duration>,
    /// When the last step came back, and how long steps take of late.
    pub(super) applied_at: Duration,
    pub(super) step_time: Duration,
    /// What the last plan used; the rest of the fields are filled in when asked for.
    pub(super) last: SchedulerStats,
}

impl Scheduler {
    /// # Panics
    /// When a limit is 0 or a cap on a rate is not a positive number: the engine's configuration checks them first.
    pub fn new(config: SchedulerConfig) -> Self {
        assert!(config.max_num_batched_tokens > 0, "max_num_batched_tokens is 0");
        assert!(config.max_num_seqs > 0, "max_num_seqs is 0");
        assert!((1..=MAX_STEPS_IN_FLIGHT).contains(&config.max_steps_in_flight), "max_steps_in_flight is {}", config.max_steps_in_flight);
        assert!(config.speculative.is_none_or(|s| s.prompt_lookup_min > 0), "prompt_lookup_min is 0");
        assert!(config.stream_rate_cap.is_none_or(|rate| rate.is_normal() && rate > 0.0), "stream_rate_cap is not a positive number");
        Self {
            pool: BlockPool::new(config.num_blocks, config.block_size),
            host: HostPool::new(config.num_host_blocks),
            accounts: Accounts::new(config.caps),
            running: Vec::new(),
            waiting: VecDeque::new(),
            preempted: Vec::new(),
            ending: Vec::new(),
            next_arrival: 1,
            copies: Vec::new(),
            offload: Vec::new(),
            onload: Vec::new(),
            seats: 0.0,
            looked_at: Duration::ZERO,
            prefill_token_s: None,
            left_waiting: false,
            next_deadline: None,
            last_decoded: Rank::default(),
            next_step: 0,
            in_flight: VecDeque::new(),
            paced: HashSet::new(),
            wakeup: None,
            applied_at: Duration::ZERO,
            step_time: Duration::ZERO,
            last: SchedulerStats { step_budget: config.max_num_batched_tokens, ..SchedulerStats::default() },
            config,
        }
    }

    /// Queues a sequence behind all that came before it, or by its priority where the policy looks at that.
    ///
    /// # Errors
    /// When it could never run, however empty the engine is.
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
        // The last token of a sequence is never fed back, so it needs no slot.
        let limit = max_model_len.min(capacity + 1);
        let priority = if self.config.policy == SchedulingPolicy::Priority { new.priority } else { 0 };
        let rank = Rank { priority, arrival: self.next_arrival };
        self.next_arrival += 1;
        let leader = new.group.filter(|&leader| leader != new.id);
        let scope = cache_scope(&new, self.config.enable_prefix_caching);
        let owners = self.accounts.join(new.tenant.clone(), new.connection);
        let mut sequence = Sequence::new(new, rank, limit, scope, owners);
        sequence.pacing = StreamPacing::new(self.config.pacing_law);
        sequence.fork = leader.and_then(|leader| self.join_group(leader));
        self.next_deadline = [self.next_deadline, sequence.next_deadline()].into_iter().flatten().min();
        let place = self.waiting.partition_point(|s| s.rank < rank);
        self.waiting.insert(place, sequence);
        Ok(())
    }

    /// How many more sequences to add now: as many as may wait, and seats that nobody waits for. Who adds keeps to it.
    ///
    /// Sequences that have run before, and those that only the caps on their owners keep waiting, take nothing of it: a capped owner's
    /// queue is bounded by itself, see [`Scheduler::queues`].
    pub fn room_to_wait(&self) -> usize {
        self.queues().0
    }

    /// The room to wait, and the owners as many of whose sequences wait for their caps as may wait: to add none of theirs.
    pub fn queues(&self) -> (usize, FullQueues) {
        let Some(max_waiting) = self.config.max_waiting else { return (usize::MAX, FullQueues::default()) };
        let seats = if self.left_waiting { 0.0 } else { (self.config.max_num_seqs as f64 - self.seats_taken()).max(0.0) };
        let to_start = self.waiting.iter().filter(|s| s.first_scheduled.is_none());
        let (waiting, full) = self.accounts.count_queues(to_start.map(|s| s.owners), max_waiting);
        (max_waiting.saturating_add(seats as usize).saturating_sub(waiting), full)
    }

    fn join_group(&mut self, leader: SequenceId) -> Option<Fork> {
        let leader = self.running.iter_mut().chain(&mut self.waiting).chain(&mut self.ending).find(|s| s.id == leader && !s.cancelled)?;
        leader.num_forks += 1;
        Some(Fork { leader: leader.rank, prompt_computed: leader.num_output_tokens() > 0 })
    }

    /// Drops the sequences whose time is up, which frees their blocks at once, and names them. Call it where a step may be planned.
    pub fn expire(&mut self, now: Duration) -> Vec<Expired> {
        if self.in_flight.len() >= self.config.max_steps_in_flight || self.next_deadline.is_none_or(|deadline| now < deadline) {
            return Vec::new();
        }
        let is_due = |s: &Sequence| s.next_deadline().is_some_and(|deadline| deadline <= now);
        let expired = |s: &Sequence| Expired { id: s.id, cause: s.expiry_cause(now), output_tokens: s.num_output_tokens() };
        let mut all: Vec<Expired> = self.waiting.iter().chain(&self.ending).filter(|s| is_due(s)).map(expired).collect();
        self.drop_aside(is_due);
        all.extend(self.running.iter().filter(|s| is_due(s) && !s.cancelled).map(expired));
        self.drop_running(is_due);
        self.paced.retain(|id| all.iter().all(|expired| expired.id != *id));
        self.next_deadline = self.running.iter().chain(&self.waiting).filter_map(Sequence::next_deadline).min();
        all
    }

    /// Forgets a sequence; no update comes for it any more. Its blocks are free at once, or with the next plan or outcome of a step if it is
    /// in one. False when it is not (or no longer) here.
    pub fn cancel(&mut self, id: SequenceId) -> bool {
        self.paced.remove(&id);
        if let Some(i) = self.waiting.iter().position(|s| s.id == id) {
            let sequence = self.waiting.remove(i);
            sequence.into_iter().for_each(|mut s| s.end(&mut self.pool, &mut self.host, &mut self.accounts));
            return true;
        }
        if let Some(i) = self.ending.iter().position(|s| s.id == id) {
            self.ending.remove(i).end(&mut self.pool, &mut self.host, &mut self.accounts);
            return true;
        }
        let Some(i) = self.running.iter().position(|s| s.id == id && !s.cancelled) else {
            return false;
        };
        if self.running[i].steps_in_flight > 0 {
            self.running[i].cancelled = true;
        } else {
            self.running.remove(i).end(&mut self.pool, &mut self.host, &mut self.accounts);
        }
        true
    }

    /// Drops everything and names it. Steps in flight must not be applied any more.
    pub fn abort_all(&mut self) -> Vec<SequenceId> {
        self.in_flight.clear();
        let mut dropped = self.drop_running(|_| true);
        dropped.extend(self.drop_aside(|_| true));
        dropped
    }

    /// Drops sequences that have no place in the next step, and names them.
    pub(super) fn drop_aside(&mut self, drop: impl Fn(&Sequence) -> bool) -> Vec<SequenceId> {
        let Self { ending, waiting, pool, host, accounts, .. } = self;
        let mut dropped = Vec::new();
        let mut keep = |s: &mut Sequence| {
            let drops = drop(s);
            if drops {
                s.end(pool, host, accounts);
                dropped.push(s.id);
            }
            !drops
        };
        ending.retain_mut(&mut keep);
        waiting.retain_mut(keep);
        dropped
    }

    pub(super) fn drop_running(&mut self, drop: impl Fn(&Sequence) -> bool) -> Vec<SequenceId> {
        let Self { running, pool, host, accounts, .. } = self;
        let dropped = running.extract_if(.., |s| drop(s));
        let released = dropped.map(|mut s| {
            s.end(pool, host, accounts);
            s
        });
        released.filter(|s| !s.cancelled).map(|s| s.id).collect()
    }

    /// After a `plan` in which streams sat out: when, on the clock of `now`, to plan again even if nothing else happens.
    pub fn next_wakeup(&self, now: Duration) -> Option<Duration> {
        self.wakeup.map(|wakeup| wakeup.max(now))
    }

    /// When to call [`Scheduler::expire`], at the latest.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.next_deadline
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
        self.running.is_empty() && self.waiting.is_empty() && self.ending.is_empty()
    }

    pub fn stats(&self) -> SchedulerStats {
        let host_blocks_used = self.host.num_blocks() - self.host.num_free();
        SchedulerStats {
            running: self.running.len() + self.ending.len(),
            waiting: self.waiting.len(),
            paced: self.paced.len(),
            offloaded: if host_blocks_used > 0 { self.waiting.iter().filter(|s| s.host.is_some()).count() } else { 0 },
            host_blocks_used,
            host_blocks: self.host.num_blocks(),
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
        self.pool.check_invariants(self.running.iter().chain(&self.waiting).chain(&self.ending).map(|s| &s.block_table))?;
        if let Some(s) = self.waiting.iter().find(|s| !s.block_table.is_empty() || s.num_computed_tokens > 0) {
            return Err(format!("sequence {} waits and holds blocks", s.id.0));
        }
        for flight in &self.in_flight {
            for share in &flight.shares {
                // What a preempted one wrote is nobody's.
                let Some(s) = self.running_index(share.rank).map(|i| &self.running[i]) else { continue };
                let mut blocks = (share.start..share.end).map(|position| s.block_table.blocks()[position / self.pool.block_size()]);
                if let Some(block) = blocks.find(|&block| self.pool.ref_count(block) != 1) {
                    return Err(format!("sequence {} writes block {}, which is shared", s.id.0, block.0));
                }
            }
        }
        for s in self.running.iter().chain(&self.waiting).chain(&self.ending) {
            let shares = || self.in_flight.iter().flat_map(|flight| &flight.shares).filter(|share| share.rank == s.rank);
            let counted = (shares().count(), shares().filter(|share| share.rows > 0).count());
            if counted != (s.steps_in_flight, s.num_pending) {
                let booked = (s.steps_in_flight, s.num_pending);
                return Err(format!("sequence {} has {counted:?} (steps, tokens) in flight, booked as {booked:?}", s.id.0));
            }
        }
        let of_running = self.running.iter().map(|s| (s.owners, true));
        let of_running = of_running.chain(self.ending.iter().map(|s| (s.owners, !s.block_table.is_empty())));
        self.accounts.check(of_running.chain(self.waiting.iter().map(|s| (s.owners, false))))?;
        let tables = self.waiting.iter().filter_map(|s| s.host.as_ref());
        self.host.check_invariants(tables.flat_map(|table| table.blocks().iter().copied()))?;
        if let Some(s) = self.running.iter().find(|s| s.host.is_some()) {
            return Err(format!("sequence {} runs and has blocks in host memory", s.id.0));
        }
        if let Some(s) = self.running.iter().find(|s| !(0.0..=1.0).contains(&s.presence)) {
            return Err(format!("sequence {} takes {} of a seat", s.id.0, s.presence));
        }
        if !self.running.is_sorted_by_key(|s| s.rank) || !self.waiting.iter().is_sorted_by_key(|s| s.rank) {
            return Err("a queue is out of order".into());
        }
        Ok(())
    }

    pub(super) fn running_index(&self, rank: Rank) -> Option<usize> {
        self.running.binary_search_by_key(&rank, |s| s.rank).ok()
    }

    pub(super) fn note_wait(&mut self, id: SequenceId, wait: Option<Wait>) {
        if let Some(wait) = wait {
            if wait.for_credit {
                self.paced.insert(id);
            }
            self.wakeup = Some(self.wakeup.map_or(wait.until, |wakeup| wakeup.min(wait.until)));
        }
    }

    /// A waiting sequence is passed over since its owner has its share.
    pub(super) fn note_capped(&mut self, capped: Capped) {
        let count = if capped.by_tenant { &mut self.last.tenant_capped } else { &mut self.last.connection_capped };
        *count += 1;
        self.wake_at(capped.until);
    }

    pub(super) fn wake_at(&mut self, at: Option<Duration>) {
        self.wakeup = [self.wakeup, at].into_iter().flatten().min();
    }

    pub(super) fn requeue_preempted(&mut self) {
        for sequence in self.preempted.drain(..) {
            let place = self.waiting.partition_point(|s| s.rank < sequence.rank);
            self.waiting.insert(place, sequence);
        }
    }
}
