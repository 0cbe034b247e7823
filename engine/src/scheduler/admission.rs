//! Who starts: waiting sequences by rank, as far as tokens, seats and blocks go.
//!
//! The first that finds no room holds up all behind it, so that none waits for ever behind those that need less. Only these are
//! overtaken: streams whose link is behind, forks whose prompt is being computed, and long prompts while another is.

use std::time::Duration;

use super::{
    BlockCopy, Network, Scheduler, SchedulingPolicy,
    budget::Budget,
    pacing,
    running::{Fork, Rank, Sequence},
};
use crate::kv::BlockId;

/// Room for a sequence, and the blocks that it need not compute.
struct Room {
    found: Vec<BlockId>,
}

impl Scheduler {
    /// Starts waiting sequences in order while there is budget; returns the long prompts that are to come after all others.
    pub(super) fn admit(&mut self, now: Duration, network: &dyn Network, budget: &mut Budget) -> Vec<Rank> {
        let mut long = Vec::new();
        let mut next = 0;
        while next < self.waiting.len() && budget.left > 0 && !budget.puts_off() {
            let wait = self.waiting[next].look(self.config.pacing, now, network);
            self.note_wait(self.waiting[next].id, wait);
            if wait.is_some() || self.awaits_leader(next) {
                next += 1;
            } else if budget.comes_last(|| self.num_uncomputed_tokens(&self.waiting[next])) {
                long.push(self.waiting[next].rank);
                next += 1;
            } else if !self.start(next, now, budget, Budget::give_chunk) {
                break;
            }
        }
        long
    }

    /// Starts long prompts with what is left.
    pub(super) fn admit_long(&mut self, long: Vec<Rank>, now: Duration, budget: &mut Budget) {
        for rank in long {
            let Ok(at) = self.waiting.binary_search_by_key(&rank, |s| s.rank) else { continue };
            if budget.left == 0 || budget.is_full() || !self.start(at, now, budget, Budget::give_rest) {
                break;
            }
        }
    }

    /// Moves a waiting sequence to those that run, with what `give` gives it. False when there is no room.
    fn start(&mut self, at: usize, now: Duration, budget: &mut Budget, give: fn(&mut Budget, &mut Sequence)) -> bool {
        let rank = self.waiting[at].rank;
        // What a preemption frees is not for those behind its victim.
        if self.preempted.iter().any(|s| !s.is_paced() && s.rank < rank) {
            return false;
        }
        let Some(Room { found }) = self.make_room(at, now, budget) else { return false };
        let Some(mut sequence) = self.waiting.remove(at) else { return false };
        let num_found = found.len() * self.config.block_size;
        sequence.block_table.adopt(found, &mut self.pool);
        let grown = sequence.block_table.grow(sequence.tokens.len(), &mut self.pool);
        debug_assert!(grown, "make_room found blocks");
        sequence.num_computed_tokens = num_found;
        self.copy_tail(&mut sequence);
        if sequence.first_scheduled.is_none() {
            sequence.first_scheduled = Some(now);
            sequence.num_cached_tokens = sequence.num_computed_tokens;
            if self.config.enable_prefix_caching && sequence.looks_up_prefix() {
                self.last.prefix_cache_queries += sequence.tokens.len() as u64;
                self.last.prefix_cache_hits += num_found as u64;
            }
        }
        give(budget, &mut sequence);
        let place = self.running.partition_point(|s| s.rank < sequence.rank);
        self.running.insert(place, sequence);
        true
    }

    /// Whether a fork's prompt is still being computed. Where its leader went before that, the first fork to ask leads the others.
    fn awaits_leader(&mut self, at: usize) -> bool {
        let Some(Fork { leader, prompt_computed: false }) = self.waiting[at].fork else { return false };
        let is_here = self.running_index(leader).is_some()
            || self.waiting.binary_search_by_key(&leader, |s| s.rank).is_ok()
            || self.preempted.iter().any(|s| s.rank == leader);
        if !is_here {
            let heir = self.waiting[at].rank;
            self.waiting[at].fork = None;
            for sibling in self.waiting.iter_mut() {
                if let Some(fork) = sibling.fork.as_mut().filter(|fork| fork.leader == leader) {
                    fork.leader = heir;
                }
            }
        }
        is_here
    }

    /// Whole blocks that need not be computed. At least the last token is computed, so that there are logits to sample from.
    fn find_prefix(&self, sequence: &Sequence) -> Vec<BlockId> {
        match &sequence.scope {
            Some(scope) if sequence.looks_up_prefix() => self.pool.find_prefix(scope, &sequence.tokens[..sequence.tokens.len() - 1]),
            _ => Vec::new(),
        }
    }

    /// What a waiting sequence would have to compute if it started now.
    fn num_uncomputed_tokens(&self, sequence: &Sequence) -> usize {
        sequence.num_uncomputed_tokens() - self.find_prefix(sequence).len() * self.config.block_size
    }

    /// A fork that found all whole blocks of its prompt gets a copy of the block that its leader went on writing.
    fn copy_tail(&mut self, sequence: &mut Sequence) {
        let Some(fork) = sequence.fork.take() else { return };
        let (start, size) = (sequence.num_computed_tokens, self.config.block_size);
        let end = sequence.num_prompt_tokens() - 1;
        if sequence.num_output_tokens() > 0 || end <= start || end - start >= size || !sequence.looks_up_prefix() {
            return;
        }
        let Some(leader) = self.running_index(fork.leader).map(|i| &self.running[i]) else { return };
        if leader.num_computed_tokens < end {
            return;
        }
        self.copies.push(BlockCopy { from: leader.block_table.blocks()[start / size], to: sequence.block_table.blocks()[start / size] });
        sequence.num_computed_tokens = end;
    }

    /// Finds a seat and blocks for a waiting sequence, if need be after parking streams that have been stalled for long, or preempting
    /// sequences of lower priority.
    fn make_room(&mut self, at: usize, now: Duration, budget: &mut Budget) -> Option<Room> {
        let rank = self.waiting[at].rank;
        let by_priority = self.config.policy == SchedulingPolicy::Priority;
        let stalled = |s: &Sequence| s.pacing.paced_since.is_some_and(|since| now.saturating_sub(since) >= pacing::PARK_AFTER);
        let yields = |s: &Sequence| stalled(s) || (by_priority && s.rank.priority > rank.priority);

        let no_seat = self.running.len() >= self.config.max_num_seqs;
        if no_seat && !self.running.iter().any(yields) {
            return None;
        }
        let found = self.find_prefix(&self.waiting[at]);
        let total = self.pool.blocks_for(self.waiting[at].tokens.len());
        // Blocks that are found but free come from the free list too.
        let missing = |s: &Self| total - found.iter().filter(|&&block| s.pool.ref_count(block) > 0).count();
        let fits = |s: &Self| s.running.len() < s.config.max_num_seqs && missing(s) <= s.pool.num_free();
        if !fits(self) {
            let freed = |s: &Sequence| {
                let own = |block: &&BlockId| self.pool.ref_count(**block) == 1 && !found.contains(block);
                s.block_table.blocks().iter().filter(own).count()
            };
            let yielding = self.running.iter().filter(|s| yields(s));
            let (seats, blocks) = yielding.fold((0, 0), |(seats, blocks), s| (seats + 1, blocks + freed(s)));
            if (no_seat && seats == 0) || missing(self) > self.pool.num_free() + blocks {
                return None;
            }
            while !fits(self) {
                let victim = self.running.iter().rposition(stalled).or_else(|| self.running.iter().rposition(yields))?;
                budget.left += self.running[victim].num_scheduled_tokens;
                self.preempt(victim);
            }
        }
        Some(Room { found })
    }
}
