//! Who starts: waiting sequences by rank, as far as tokens, seats and blocks go.
//!
//! The first that finds no room holds up all behind it, so that none waits for ever behind those that need less. Only these are
//! overtaken: streams whose link is behind, sequences whose tenant or connection has its share ([`super::caps`]), forks whose prompt is
//! being computed, long prompts while another is, and requests whose links carry little.
//!
//! The device is full when what links deliver adds up to what it computes. So a sequence takes as much of a seat as it runs
//! ([`super::seats`]), and one that comes by a connection whose delivery rate is known takes, until it has been seen, the share of a
//! stream's pace that this link carries: many slow streams fit where few fast ones do, as far as there are blocks. While its link carries
//! less than a quarter of that pace ([`LITTLE`]), those that can use the room go first: it starts with what they leave, and takes no
//! blocks and no seat from anyone. That lasts [`PASSED_OVER_AT_MOST`] from the first time that it was passed over; then its rank counts
//! as any other's, and it waits no longer than first come, first served would have it wait. Its start may so be late by that bound, which
//! costs it little: its first window of output fills its link for longer. Without pacing by connection nobody is passed over.

use std::{collections::HashSet, time::Duration};

use super::{
    BlockCopy, Network, Scheduler, SchedulingPolicy,
    budget::Budget,
    caps::Capped,
    offload::HostTable,
    pacing,
    queued::{Fork, Rank, Sequence},
};
use crate::kv::BlockId;

/// A link that carries less than this share of what a stream gets that runs in every step carries little.
const LITTLE: f64 = 0.25;

/// For no longer than this are others let past a sequence because its link carries little.
pub const PASSED_OVER_AT_MOST: Duration = Duration::from_secs(2);

/// What a stream is taken to need of a seat at least, before it is known.
const LEAST_PRESENCE: f64 = 0.05;

impl Sequence {
    /// Whether others that wait go first, since what it would be given now could not be delivered soon.
    fn lets_others_pass(&self, now: Duration) -> bool {
        self.deliverable < LITTLE && self.passed_over_since.is_none_or(|since| now < since + PASSED_OVER_AT_MOST)
    }
}

/// Room for a sequence, and the blocks that it need not compute.
struct Room {
    found: Vec<BlockId>,
}

impl Scheduler {
    /// Starts waiting sequences in order while there is budget; returns the long prompts that are to come after all others.
    pub(super) fn admit(&mut self, now: Duration, network: &dyn Network, budget: &mut Budget) -> Vec<Rank> {
        let (mut long, mut slow) = (Vec::new(), Vec::new());
        let mut has_room = true;
        let mut next = 0;
        while next < self.waiting.len() && budget.left > 0 && !budget.puts_off() {
            let mut capped = self.may_start(next).err();
            if let Some(capped) = capped.filter(|capped| !self.may_insist(next, capped)) {
                self.note_capped(capped);
                next += 1;
                continue;
            }
            let wait = self.waiting[next].look(&self.config, now, self.step_time, network);
            self.note_wait(self.waiting[next].id, wait);
            // Where it goes on is known only when the steps are back that it was in.
            let waits = wait.is_some() || self.waiting[next].steps_in_flight > 0 || self.awaits_leader(next) || self.awaits_prefix(next);
            if !waits && capped.is_some() {
                capped = self.insist(next, now, budget).err();
            }
            if let Some(capped) = capped {
                self.note_capped(capped);
                next += 1;
            } else if waits {
                next += 1;
            } else if self.waiting[next].lets_others_pass(now) {
                slow.push(self.waiting[next].rank);
                next += 1;
            } else if budget.comes_last(|| self.num_uncomputed_tokens(&self.waiting[next])) {
                long.push(self.waiting[next].rank);
                next += 1;
            } else if !self.start(next, now, budget, Budget::give_chunk) {
                has_room = false;
                break;
            }
        }
        self.left_waiting |= next < self.waiting.len();
        self.admit_slow(slow, has_room, now, budget);
        long
    }

    fn may_start(&self, at: usize) -> Result<(), Capped> {
        let Sequence { owners, rank, is_prepaid, .. } = self.waiting[at];
        self.accounts.may_start(owners, rank, is_prepaid)
    }

    /// Whether a sequence whose owner has its share could have a parked one's place, or claim its turn.
    fn may_insist(&self, at: usize, capped: &Capped) -> bool {
        let owners = self.waiting[at].owners;
        if capped.until.is_some() { self.accounts.may_claim(owners) } else { self.accounts.have_parked(owners) }
    }

    /// For a sequence that only its owners keep from starting: takes the place of the last of theirs that is parked, or claims a turn.
    fn insist(&mut self, at: usize, now: Duration, budget: &mut Budget) -> Result<(), Capped> {
        let Sequence { owners, rank, .. } = self.waiting[at];
        while let Err(capped) = self.may_start(at) {
            if capped.until.is_some() {
                self.accounts.claim(owners, rank, self.next_step);
                return Err(capped);
            }
            let takes = !self.waiting[at].lets_others_pass(now) && self.has_seat(0.0) && budget.places > 0;
            let gives = |s: &Sequence| s.is_stalled(now, pacing::PARK_AFTER) && self.accounts.share_full(owners, s.owners);
            let victim = if takes { self.running.iter().rposition(gives) } else { None };
            let victim = victim.ok_or(capped)?;
            budget.take_back(&self.running[victim]);
            self.preempt(victim);
        }
        Ok(())
    }

    /// Whether its copy on the host goes on from blocks that another brings back in this plan, so that the next finds them.
    fn awaits_prefix(&self, at: usize) -> bool {
        let sequence = &self.waiting[at];
        let goes_on = |table: &HostTable| table.starts_after(self.find_prefix(sequence).len());
        sequence.host.as_ref().is_some_and(|table| self.running.iter().any(|s| s.host.is_some()) && goes_on(table))
    }

    /// Starts those whose links carry little with what the others left; those that find nothing have been passed over.
    fn admit_slow(&mut self, slow: Vec<Rank>, mut has_room: bool, now: Duration, budget: &mut Budget) {
        for rank in slow {
            let Ok(at) = self.waiting.binary_search_by_key(&rank, |s| s.rank) else { continue };
            if self.may_start(at).is_err() || self.awaits_prefix(at) {
                // Those that went first took its owner's share.
                self.waiting[at].passed_over_since.get_or_insert(now);
                continue;
            }
            let is_long = budget.comes_last(|| self.num_uncomputed_tokens(&self.waiting[at]));
            has_room = has_room && budget.left > 0 && !budget.puts_off();
            if has_room && !is_long {
                has_room = self.start(at, now, budget, Budget::give_chunk);
            }
            if let Some(passed_over) = self.waiting.get_mut(at).filter(|s| s.rank == rank) {
                passed_over.passed_over_since.get_or_insert(now);
                self.left_waiting = true;
            }
        }
    }

    /// Starts long prompts with what is left.
    pub(super) fn admit_long(&mut self, long: Vec<Rank>, now: Duration, budget: &mut Budget) {
        for rank in long {
            let Ok(at) = self.waiting.binary_search_by_key(&rank, |s| s.rank) else { continue };
            if self.may_start(at).is_err() || self.awaits_prefix(at) {
                continue;
            }
            if budget.left == 0 || budget.is_full() || !self.start(at, now, budget, Budget::give_rest) {
                self.left_waiting = true;
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
        self.onload(&mut sequence);
        self.copy_tail(&mut sequence);
        sequence.started_in = Some(self.next_step);
        sequence.passed_over_since = None;
        sequence.presence = sequence.deliverable.max(LEAST_PRESENCE);
        self.seats += sequence.presence;
        if sequence.first_scheduled.is_none() {
            sequence.first_scheduled = Some(now);
            sequence.num_cached_tokens = sequence.num_computed_tokens;
            if self.config.enable_prefix_caching && sequence.looks_up_prefix() {
                self.last.prefix_cache_queries += sequence.tokens.len() as u64;
                self.last.prefix_cache_hits += num_found as u64;
            }
        }
        self.accounts.started(sequence.owners, sequence.is_prepaid);
        sequence.is_prepaid = true;
        sequence.last_decoded = self.next_step + 1;
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
            || self.preempted.iter().chain(&self.ending).any(|s| s.rank == leader);
        if !is_here {
            let heir = self.waiting[at].rank;
            self.waiting[at].fork = None;
            let mut num_forks = 0;
            for fork in self.waiting.iter_mut().filter_map(|s| s.fork.as_mut()).filter(|fork| fork.leader == leader) {
                fork.leader = heir;
                num_forks += 1;
            }
            self.waiting[at].num_forks = num_forks;
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
        let size = self.config.block_size;
        let found = self.find_prefix(sequence).len() * size;
        sequence.num_uncomputed_tokens() - sequence.host.as_ref().map_or(found, |table| table.num_stored(found, size))
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
        // What is being brought back is not there yet.
        if leader.num_computed_tokens < end || leader.host.is_some() {
            return;
        }
        self.copies.push(BlockCopy { from: leader.block_table.blocks()[start / size], to: sequence.block_table.blocks()[start / size] });
        sequence.num_computed_tokens = end;
    }

    /// Finds a seat and blocks for a waiting sequence, if need be at the cost of streams that are parked, or of sequences of lower priority.
    /// One whose link carries little takes nothing from others.
    fn make_room(&mut self, at: usize, now: Duration, budget: &mut Budget) -> Option<Room> {
        let rank = self.waiting[at].rank;
        let by_priority = self.config.policy == SchedulingPolicy::Priority;
        let takes_nothing = self.waiting[at].lets_others_pass(now);
        let stalled = |s: &Sequence| !takes_nothing && s.is_stalled(now, pacing::PARK_AFTER);
        let yields = |s: &Sequence| stalled(s) || (!takes_nothing && by_priority && s.rank.priority > rank.priority);

        let has_seat = |s: &Self, budget: &Budget| s.has_seat(0.0) && budget.places > 0;
        if !has_seat(self, budget) && !self.running.iter().any(yields) {
            return None;
        }
        let found = self.find_prefix(&self.waiting[at]);
        let total = self.pool.blocks_for(self.waiting[at].tokens.len());
        // Blocks that are found but free come from the free list too.
        let missing = |s: &Self| total - found.iter().filter(|&&block| s.pool.ref_count(block) > 0).count();
        let fits = |s: &Self, budget: &Budget| has_seat(s, budget) && missing(s) <= s.pool.num_free();
        if missing(self) > self.pool.num_free() {
            self.release_ending();
        }
        if !fits(self, budget) {
            let needed: HashSet<BlockId> = found.iter().copied().collect();
            let freed = |s: &Sequence| {
                let own = |block: &&BlockId| self.pool.ref_count(**block) == 1 && !needed.contains(block);
                s.block_table.blocks().iter().filter(own).count()
            };
            let yielding = self.running.iter().filter(|s| yields(s));
            let places = budget.places + yielding.clone().filter(|s| s.num_scheduled_tokens > 0).count();
            let (seats, blocks) = yielding.fold((0.0, 0), |(seats, blocks), s| (seats + s.presence, blocks + freed(s)));
            if !self.has_seat(seats) || places == 0 || missing(self) > self.pool.num_free() + blocks {
                return None;
            }
            while !fits(self, budget) {
                // The parked have blocks to give and hardly a seat.
                let parked = if missing(self) > self.pool.num_free() { self.running.iter().rposition(stalled) } else { None };
                let victim = parked.or_else(|| self.find_seat(budget, yields))?;
                budget.take_back(&self.running[victim]);
                self.preempt(victim);
            }
        }
        Some(Room { found })
    }

    /// Whose seat and place to take of those that yield: the last one's that is enough, or else the one's that gives most.
    fn find_seat(&self, budget: &Budget, yields: impl Fn(&Sequence) -> bool) -> Option<usize> {
        let yields = |s: &Sequence| yields(s) && (budget.places > 0 || s.num_scheduled_tokens > 0);
        let is_enough = |s: &Sequence| yields(s) && self.has_seat(s.presence);
        let most = || {
            (0..self.running.len())
                .filter(|&i| yields(&self.running[i]))
                .max_by(|&a, &b| self.running[a].presence.total_cmp(&self.running[b].presence))
        };
        self.running.iter().rposition(is_enough).or_else(most)
    }
}
