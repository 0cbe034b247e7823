//! What goes into a step: vLLM's policy, in the words of DESIGN section 4.
//!
//! Running before waiting, decodes before prefill chunks, first come first served, within a budget of tokens. Who is paced sits
//! the step out; who cannot get a block preempts, paced sequences first, then the latest to arrive.

use std::time::Duration;

use super::{Network, Scheduler, StepPlan, pacing, running::Sequence};

/// Tokens of one step, as they are given away.
struct Budget {
    limit: usize,
    left: usize,
    /// Tokens that sequences could have used and pacing did not give them.
    withheld: usize,
}

impl Scheduler {
    /// Fills the next step. `None` when nothing can run (then see [`Scheduler::next_wakeup`]) or a step is in flight.
    ///
    /// Asks `network` at most once for each running streamed sequence, and once for each waiting one that it considers.
    pub fn plan(&mut self, now: Duration, network: &dyn Network) -> Option<StepPlan> {
        if self.in_flight.is_some() {
            return None;
        }
        let limit = pacing::step_budget(self.config.pacing, self.config.max_num_batched_tokens, || network.health_factor());
        let mut budget = Budget { limit, left: limit, withheld: 0 };

        self.pace_running(now, network, &mut budget);
        self.schedule_decodes(&mut budget);
        self.schedule_prefills(&mut budget);
        if self.preempted.is_empty() {
            self.admit(now, network, &mut budget);
        }
        self.requeue_preempted();
        self.finish_plan(&budget)
    }

    fn pace_running(&mut self, now: Duration, network: &dyn Network, budget: &mut Budget) {
        self.paced.clear();
        self.wakeup = None;
        for i in 0..self.running.len() {
            let wait = self.running[i].look(self.config.pacing, now, network);
            self.note_wait(self.running[i].id, wait);
            budget.withheld += usize::from(wait.is_some());
        }
    }

    /// One token for each sequence that generates. Where the budget has too few, they take turns.
    fn schedule_decodes(&mut self, budget: &mut Budget) {
        let ready = |s: &&Sequence| !s.sits_out() && s.num_uncomputed_tokens() == 1;
        let mut decodes: Vec<u64> = self.running.iter().filter(ready).map(|s| s.order).collect();
        if decodes.len() > budget.left {
            let turn = decodes.partition_point(|&order| order <= self.last_decoded);
            decodes.rotate_left(turn);
        }
        for order in decodes {
            if budget.left == 0 {
                break;
            }
            if self.ensure_blocks(order, budget) {
                let i = self.running_index(order).expect("it has its blocks");
                self.running[i].num_scheduled_tokens = 1;
                self.last_decoded = order;
                budget.left -= 1;
            }
        }
    }

    /// Makes sure that a running sequence has blocks for all its tokens, if need be at the cost of others. False when it was itself preempted.
    fn ensure_blocks(&mut self, order: u64, budget: &mut Budget) -> bool {
        while let Some(i) = self.running_index(order) {
            let sequence = &mut self.running[i];
            if sequence.block_table.grow(sequence.tokens.len(), &mut self.pool) {
                return true;
            }
            let victim = self.running.iter().rposition(Sequence::is_paced).unwrap_or(self.running.len() - 1);
            budget.left += self.running[victim].num_scheduled_tokens;
            self.preempt(victim);
        }
        false
    }

    /// Chunks of prompts that have been admitted before.
    fn schedule_prefills(&mut self, budget: &mut Budget) {
        let ready = |s: &&mut Sequence| !s.sits_out() && s.num_scheduled_tokens == 0 && s.num_uncomputed_tokens() > 1;
        for sequence in self.running.iter_mut().filter(ready) {
            budget.give_chunk(sequence, self.config.block_size);
        }
    }

    /// Starts waiting sequences in order while there is budget. One that finds no room holds up all behind it, or a long prompt would wait for ever.
    fn admit(&mut self, now: Duration, network: &dyn Network, budget: &mut Budget) {
        let mut next = 0;
        while next < self.waiting.len() && budget.left > 0 {
            let wait = self.waiting[next].look(self.config.pacing, now, network);
            self.note_wait(self.waiting[next].id, wait);
            if wait.is_some() {
                next += 1;
                continue;
            }
            if !self.make_room(self.waiting[next].tokens.len(), now) {
                break;
            }
            let mut sequence = self.waiting.remove(next).expect("next is in the queue");
            let grown = sequence.block_table.grow(sequence.tokens.len(), &mut self.pool);
            debug_assert!(grown, "make_room found blocks");
            sequence.first_scheduled.get_or_insert(now);
            budget.give_chunk(&mut sequence, self.config.block_size);
            let place = self.running.partition_point(|s| s.order < sequence.order);
            self.running.insert(place, sequence);
        }
    }

    /// Whether a seat and blocks for `num_tokens` are free, if need be after parking streams that have been stalled for long.
    fn make_room(&mut self, num_tokens: usize, now: Duration) -> bool {
        let stalled = |s: &Sequence| s.pacing.paced_since.is_some_and(|since| now.saturating_sub(since) >= pacing::PARK_AFTER);
        let needed = self.pool.blocks_for(num_tokens);
        let (mut seats, mut blocks) = (self.config.max_num_seqs - self.running.len(), self.pool.num_free());
        let mut parked = 0;
        for sequence in self.running.iter().rev().filter(|s| stalled(s)) {
            if seats > 0 && blocks >= needed {
                break;
            }
            seats += 1;
            blocks += sequence.block_table.blocks().len();
            parked += 1;
        }
        if seats == 0 || blocks < needed {
            return false;
        }
        for _ in 0..parked {
            let victim = self.running.iter().rposition(stalled).expect("counted above");
            self.preempt(victim);
        }
        true
    }

    fn finish_plan(&mut self, budget: &Budget) -> Option<StepPlan> {
        let scheduled = self.running.iter().filter(|s| s.num_scheduled_tokens > 0);
        let plan =
            StepPlan { step: self.next_step, sequences: scheduled.map(|s| s.scheduled(&self.pool)).collect(), ..StepPlan::default() };
        let decode_tokens = plan.sequences.iter().filter(|s| is_decode(s)).count();
        self.last.decode_tokens = decode_tokens;
        self.last.prefill_tokens = plan.num_tokens() - decode_tokens;
        self.last.step_budget = budget.limit - budget.withheld.min(budget.left);
        if plan.sequences.is_empty() {
            return None;
        }
        self.in_flight = Some(plan.step);
        self.next_step += 1;
        Some(plan)
    }
}

impl Budget {
    /// Gives a prompt its next chunk.
    fn give_chunk(&mut self, sequence: &mut Sequence, block_size: usize) {
        let wanted = sequence.num_uncomputed_tokens().min(self.left);
        let chunk = pacing::prefill_chunk(wanted, self.left, sequence.pacing.health, block_size);
        sequence.num_scheduled_tokens = chunk;
        self.left -= chunk;
        self.withheld += wanted - chunk;
    }
}

fn is_decode(scheduled: &super::ScheduledSequence) -> bool {
    scheduled.tokens.len() == 1 && scheduled.sample.as_ref().is_some_and(|s| s.output_position > 0)
}
