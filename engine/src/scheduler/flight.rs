//! Steps that the executor has, and planning the next one meanwhile.
//!
//! With two steps in flight the device never waits for the host: the next step is planned as if the one before were done. What that
//! computes counts as computed, since the device keeps the order of the plans, and what it samples counts as a token that is not known
//! yet. That token has a position, a slot and a price like any other: it is charged to its owners' caps, and as one chunk of undelivered
//! output to its stream's credit. Blocks that become free may be given away at once, for the same order.
//!
//! What needs the token itself waits for it. Blocks become known to the prefix cache, and forks start, when their step has been taken in. A
//! sequence that reaches its length with a step in flight is set aside: it has no further step, no seat, and its blocks go before anyone is
//! preempted for blocks; its owners' caps count it until it is taken in. A stop token is found a step late: what the next step computes for the
//! sequence is dropped. A request that comes while a step runs finds the next one planned, and waits for both.
//!
//! Where a step has a sequence whose next one depends on the host's knowing the token (a grammar, penalties, multi-token bad words), where
//! it has guesses, or is small enough that the next would guess, and while a prompt is scored, the next step waits. To run the others
//! ahead would give such a sequence every other step only; that the whole step waits costs nobody more than the host's share of a
//! step, and is no slower than to have one step in flight. (A step that begins to score a prompt is read as it is issued, so that the tokens
//! of the one before come with it.)

use std::time::Duration;

use super::{
    Scheduler, SequenceId,
    queued::{Rank, Sequence},
};

/// A step that the executor has.
#[derive(Clone, Debug)]
pub(super) struct InFlight {
    pub(super) step: u64,
    pub(super) planned_at: Duration,
    pub(super) prefill_tokens: usize,
    pub(super) decode_tokens: usize,
    /// In the order of the plan, which is by rank.
    pub(super) shares: Vec<Share>,
    /// The next step can be planned only when this one has been taken in.
    pub(super) next_waits: bool,
}

/// What a step in flight does for one sequence.
#[derive(Clone, Debug)]
pub(super) struct Share {
    pub(super) rank: Rank,
    /// Positions whose KV it writes, drafts included.
    pub(super) start: usize,
    pub(super) end: usize,
    /// Tokens that it samples, one more than it has drafts; 0 where the prompt goes on.
    pub(super) rows: usize,
    pub(super) drafts: Vec<u32>,
    /// Its token was charged to its owners when it was let in.
    pub(super) is_prepaid: bool,
}

impl Sequence {
    /// Whether it cannot go on before the host knows what its share of a step samples.
    fn needs_host(&self, share: &Share) -> bool {
        let reads_token = share.rows > 0 && self.needs_known_tokens() && !self.ends_in_flight();
        reads_token || !share.drafts.is_empty() || (self.reads_prompt_logits() && self.num_output_tokens() == 0)
    }

    /// The step that was planned is the executor's: what it computes counts from now on. Its first row is the `row`th of the step.
    pub(super) fn issue(&mut self, row: usize) -> Share {
        let rows = self.num_sampled_rows();
        let drafts = std::mem::take(&mut self.drafts);
        let start = self.num_computed_tokens;
        let end = start + std::mem::take(&mut self.num_scheduled_tokens);
        // Whether the drafts hold is not known yet.
        self.num_computed_tokens = end - drafts.len();
        self.steps_in_flight += 1;
        let mut is_prepaid = false;
        if rows > 0 {
            is_prepaid = std::mem::take(&mut self.is_prepaid);
            self.num_pending += 1;
            self.pending_row = row;
            self.num_uncharged += usize::from(!is_prepaid);
        }
        Share { rank: self.rank, start, end, rows, drafts, is_prepaid }
    }

    /// A step that it had a share of is not in flight any more.
    pub(super) fn land(&mut self, share: &Share) {
        self.steps_in_flight -= 1;
        if share.rows > 0 {
            self.num_pending -= 1;
            self.num_uncharged -= usize::from(!share.is_prepaid);
        }
    }
}

impl InFlight {
    fn has(&self, sequence: &Sequence) -> bool {
        self.shares.binary_search_by_key(&sequence.rank, |share| share.rank).is_ok()
    }
}

impl Scheduler {
    /// How many steps may be planned and not yet applied.
    pub fn max_steps_in_flight(&self) -> usize {
        self.config.max_steps_in_flight
    }

    /// Plans no more steps ahead than an executor takes.
    pub fn limit_steps_in_flight(&mut self, most: usize) {
        self.config.max_steps_in_flight = self.config.max_steps_in_flight.min(most).max(1);
    }

    /// Whether a step may be planned now.
    pub(super) fn may_plan(&self) -> bool {
        self.in_flight.len() < self.config.max_steps_in_flight && !self.in_flight.back().is_some_and(|flight| flight.next_waits)
    }

    /// The sequences that got tokens in the step being planned are the executor's.
    pub(super) fn issue(&mut self, now: Duration) {
        let mut rows = 0;
        let mut next_waits = false;
        let mut shares = Vec::with_capacity(self.running.len());
        for sequence in self.running.iter_mut().filter(|s| s.num_scheduled_tokens > 0) {
            let share = sequence.issue(rows);
            rows += share.rows;
            next_waits = next_waits || sequence.needs_host(&share);
            shares.push(share);
        }
        next_waits |= self.config.speculative.is_some_and(|ngram| shares.len() <= ngram.disable_by_batch_size);
        let (prefill_tokens, decode_tokens) = (self.last.prefill_tokens, self.last.decode_tokens);
        self.in_flight.push_back(InFlight { step: self.next_step, planned_at: now, prefill_tokens, decode_tokens, shares, next_waits });
    }

    /// Before a step is planned ahead: sequences that are to have no further step are out of the way.
    pub(super) fn set_ending_aside(&mut self) {
        if self.in_flight.is_empty() {
            return;
        }
        self.drop_running(|s| s.cancelled);
        self.ending.extend(self.running.extract_if(.., |s| s.ends_in_flight()));
    }

    /// Gives the blocks back of sequences that are set aside. Whether there were any.
    pub(super) fn release_ending(&mut self) -> bool {
        let Self { ending, pool, accounts, .. } = self;
        let mut any = false;
        for sequence in ending.iter_mut().filter(|s| !s.block_table.is_empty()) {
            sequence.stop(pool, accounts);
            any = true;
        }
        any
    }

    /// Pending tokens of this plan's predecessor count as given where rates are capped.
    pub(super) fn charge_pending(&mut self) {
        let Self { running, waiting, ending, accounts, .. } = self;
        for sequence in running.iter().chain(waiting.iter()).chain(ending.iter()).filter(|s| s.num_uncharged > 0) {
            accounts.give_pending(sequence.owners, sequence.num_uncharged);
        }
    }

    /// Drops the sequences of a step in flight, which the executor failed to compute, and names them. All others go on: those of steps
    /// that were issued after it are computed again. What comes of these steps must not be applied any more.
    pub fn fail_step(&mut self, step: u64) -> Vec<SequenceId> {
        let Some(at) = self.in_flight.iter().position(|flight| flight.step == step) else { return Vec::new() };
        let mut later = self.in_flight.split_off(at);
        let Some(failed) = later.pop_front() else { return Vec::new() };
        self.forget_offloaded_since(step);
        let mut dropped = self.drop_running(|s| failed.has(s) || s.cancelled);
        dropped.extend(self.drop_aside(|s| failed.has(s)));
        for flight in &later {
            for share in &flight.shares {
                self.take_back(share);
            }
        }
        // What their step was to bring them, from the host or from a leader, may not be there.
        for i in (0..self.running.len()).rev() {
            if self.running[i].started_in.is_some_and(|started_in| started_in >= step) {
                self.evict(i);
            }
        }
        self.requeue_preempted();
        dropped
    }

    /// A share that came to nothing: its sequence is computed again.
    fn take_back(&mut self, share: &Share) {
        if let Some(i) = self.running_index(share.rank) {
            self.running[i].void(share);
            self.evict(i);
        } else if let Some(i) = self.ending.iter().position(|s| s.rank == share.rank) {
            let mut sequence = self.ending.remove(i);
            sequence.void(share);
            sequence.leave_device(&mut self.pool, &mut self.accounts);
            self.preempted.push(sequence);
        } else if let Some(sequence) = self.waiting.iter_mut().find(|s| s.rank == share.rank) {
            sequence.void(share);
        }
    }
}

impl Sequence {
    fn void(&mut self, share: &Share) {
        self.land(share);
        self.is_prepaid |= share.is_prepaid;
    }
}
