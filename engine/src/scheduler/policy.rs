//! What goes into a step: vLLM's policy, with pacing.
//!
//! Running before waiting, decodes before prefill chunks, by rank, within a budget of tokens; guesses get what nobody else wants. Who is
//! paced sits the step out; who cannot get a block preempts, paced sequences first, then the last in rank.

use std::time::Duration;

use super::{
    Network, Scheduler, StepPlan,
    budget::Budget,
    pacing,
    queued::{Rank, Sequence},
};

impl Scheduler {
    /// Fills the next step, which may have copies and no sequences. `None` when nothing can run (then see [`Scheduler::next_wakeup`]), or
    /// when a step in flight has to be applied first.
    ///
    /// Asks `network` at most once for each running streamed sequence, and once for each waiting one that it considers.
    pub fn plan(&mut self, now: Duration, network: &dyn Network) -> Option<StepPlan> {
        if !self.may_plan() {
            return None;
        }
        self.set_ending_aside();
        let limit = pacing::step_budget(self.config.pacing, self.config.max_num_batched_tokens, || network.health_factor());
        let mut budget = Budget::new(limit, &self.config);

        self.pace_running(now, network, &mut budget);
        let yielding = self.cap_decodes();
        let parked = self.offload_parked(now);
        let mut late = self.schedule_decodes(&mut budget);
        self.schedule_prefills(&mut budget);
        let mut long = Vec::new();
        self.left_waiting = false;
        if self.preempted.len() == parked {
            long = self.admit(now, network, &mut budget);
        } else {
            self.left_waiting = !self.waiting.is_empty();
        }
        self.schedule_long_prefills(&mut budget);
        self.admit_long(long, now, &mut budget);
        late.extend(self.give_unclaimed(yielding));
        self.decode_each(late, &mut budget);
        self.schedule_drafts(&mut budget);
        self.left_waiting |= self.preempted.iter().any(|s| !s.is_paced());
        self.requeue_preempted();
        self.finish_plan(now, &budget)
    }

    fn pace_running(&mut self, now: Duration, network: &dyn Network, budget: &mut Budget) {
        self.paced.clear();
        self.wakeup = None;
        (self.last.tenant_capped, self.last.connection_capped) = (0, 0);
        self.count_seats(now);
        self.accounts.begin_plan(now, self.step_time);
        if self.accounts.limit_rates() {
            self.charge_pending();
        }
        for i in 0..self.running.len() {
            let wait = self.running[i].look(&self.config, now, self.step_time, network);
            if self.running[i].is_stalled(now, pacing::PARK_AFTER) {
                self.accounts.note_parked(self.running[i].owners);
            }
            self.running[i].prefill_allowance = 0;
            self.running[i].is_capped = false;
            self.note_wait(self.running[i].id, wait);
            budget.withheld += usize::from(wait.is_some());
        }
    }

    /// Where rates are capped, says whose turn it is not. Returns those that only let a waiting sequence go first.
    fn cap_decodes(&mut self) -> Vec<Rank> {
        let mut yielding = Vec::new();
        if !self.accounts.limit_rates() {
            return yielding;
        }
        let candidates = self.running.iter().enumerate().filter(|(_, s)| !s.sits_out() && s.decodes() && !s.is_prepaid);
        let mut by_turn: Vec<(u64, usize)> = candidates.map(|(i, s)| (s.last_decoded, i)).collect();
        by_turn.sort_unstable();
        for (last_decoded, i) in by_turn {
            let owners = self.running[i].owners;
            if self.accounts.yields(owners, last_decoded) {
                self.running[i].is_capped = true;
                yielding.push(self.running[i].rank);
            } else if let Err(capped) = self.accounts.give(owners) {
                self.running[i].is_capped = true;
                self.wake_at(capped.until);
            }
        }
        yielding
    }

    /// Gives those that let others go first what these did not take; returns who gets a token.
    fn give_unclaimed(&mut self, mut yielding: Vec<Rank>) -> Vec<Rank> {
        yielding.retain(|&rank| {
            let Some(i) = self.running_index(rank) else { return false };
            match self.accounts.give(self.running[i].owners) {
                Ok(()) => self.running[i].is_capped = false,
                Err(capped) => self.wake_at(capped.until),
            }
            !self.running[i].is_capped
        });
        yielding
    }

    /// One token for each sequence that generates. Where more want to run than the step has places, prompts included, places go by rank.
    /// Where the budget has too few tokens, decodes take turns, and prompts get a share all the same: returns those that get a token only
    /// if the others leave one, and a place.
    fn schedule_decodes(&mut self, budget: &mut Budget) -> Vec<Rank> {
        let (mut decodes, mut beyond) = (Vec::new(), Vec::new());
        let (mut places, mut prompts_want) = (budget.places, !self.waiting.is_empty());
        for sequence in self.running.iter().filter(|s| !s.sits_out()) {
            match (sequence.decodes(), places) {
                (false, _) => prompts_want = true,
                (true, 0) => beyond.push(sequence.rank),
                (true, _) => decodes.push(sequence.rank),
            }
            places = places.saturating_sub(1);
        }
        let most = budget.left - if prompts_want { budget.reserve_for_prompts(self.next_step) } else { 0 };
        let mut late = Vec::new();
        if decodes.len() > most {
            let turn = decodes.partition_point(|&rank| rank <= self.last_decoded);
            decodes.rotate_left(turn);
            late = decodes.split_off(most);
        }
        late.append(&mut beyond);
        self.decode_each(decodes, budget);
        late
    }

    fn decode_each(&mut self, decodes: Vec<Rank>, budget: &mut Budget) {
        for rank in decodes {
            if budget.is_spent() {
                break;
            }
            if self.ensure_blocks(rank, budget) {
                let i = self.running_index(rank).expect("it has its blocks");
                self.running[i].num_scheduled_tokens = 1;
                self.running[i].last_decoded = self.next_step + 1;
                self.last_decoded = rank;
                budget.left -= 1;
                budget.places -= 1;
            }
        }
    }

    /// Makes sure that a running sequence has blocks for all its tokens, if need be at the cost of others. False when it was itself preempted.
    fn ensure_blocks(&mut self, rank: Rank, budget: &mut Budget) -> bool {
        while let Some(i) = self.running_index(rank) {
            let sequence = &mut self.running[i];
            if sequence.block_table.grow(sequence.num_tokens(), &mut self.pool) {
                return true;
            }
            if self.release_ending() {
                continue;
            }
            let victim = self.running.iter().rposition(Sequence::is_paced).unwrap_or(self.running.len() - 1);
            budget.take_back(&self.running[victim]);
            self.preempt(victim);
        }
        false
    }

    /// Chunks of prompts that have been admitted before.
    fn schedule_prefills(&mut self, budget: &mut Budget) {
        for sequence in self.running.iter_mut().filter(|s| !s.sits_out() && !s.decodes()) {
            if !budget.comes_last(|| sequence.num_uncomputed_tokens()) {
                if budget.puts_off() || budget.is_spent() {
                    break;
                }
                budget.give_chunk(sequence);
            }
        }
    }

    /// What is left, to long prompts.
    fn schedule_long_prefills(&mut self, budget: &mut Budget) {
        for sequence in self.running.iter_mut().filter(|s| !s.sits_out() && !s.decodes()) {
            if sequence.num_scheduled_tokens > 0 || !(budget.is_full() || budget.is_spent()) {
                budget.give_rest(sequence);
            }
        }
    }

    /// Guesses for sequences that generate, within what is left of the budget, where the step is small.
    fn schedule_drafts(&mut self, budget: &mut Budget) {
        let Some(ngram) = self.config.speculative else { return };
        if self.running.iter().filter(|s| s.num_scheduled_tokens > 0).count() > ngram.disable_by_batch_size {
            return;
        }
        for sequence in self.running.iter_mut().filter(|s| s.num_scheduled_tokens == 1 && s.decodes()) {
            // A cap on the rate is kept by single tokens.
            let is_capped = (sequence.streamed && self.config.stream_rate_cap.is_some()) || self.accounts.limit_rates();
            let most = if is_capped { 0 } else { sequence.max_drafts().min(budget.left) };
            if most == 0 {
                continue;
            }
            let mut drafts = ngram.propose(&sequence.tokens, most);
            if !sequence.block_table.grow(sequence.tokens.len() + drafts.len(), &mut self.pool) {
                drafts.truncate(sequence.block_table.blocks().len() * self.pool.block_size() - sequence.tokens.len());
            }
            budget.left -= drafts.len();
            sequence.num_scheduled_tokens += drafts.len();
            sequence.drafts = drafts;
        }
    }

    fn finish_plan(&mut self, now: Duration, budget: &Budget) -> Option<StepPlan> {
        self.last.parked = self.running.iter().filter(|s| s.is_stalled(now, pacing::PARK_AFTER)).count();
        let scheduled = self.running.iter().filter(|s| s.num_scheduled_tokens > 0);
        let scores = scheduled.clone().enumerate().filter_map(|(i, s)| s.scores(i)).collect();
        let sequences: Vec<_> = scheduled.map(|s| s.scheduled(&self.pool)).collect();
        self.release_onloaded();
        let (copies, offload, onload) = (&mut self.copies, &mut self.offload, &mut self.onload);
        let (copies, offload, onload) = (std::mem::take(copies), std::mem::take(offload), std::mem::take(onload));
        let plan = StepPlan { step: self.next_step, offload, copies, onload, sequences, scores };
        self.last.decode_tokens = plan.sequences.iter().filter(|s| is_decode(s)).map(|s| s.tokens.len()).sum();
        self.last.prefill_tokens = plan.num_tokens() - self.last.decode_tokens;
        self.last.step_budget = budget.limit - budget.withheld.min(budget.left);
        if plan.sequences.is_empty() && plan.offload.is_empty() {
            return None;
        }
        self.issue(now);
        self.next_step += 1;
        Some(plan)
    }
}

fn is_decode(scheduled: &super::ScheduledSequence) -> bool {
    scheduled.tokens.len() == 1 + scheduled.num_draft_tokens && scheduled.sample.as_ref().is_some_and(|s| s.output_position > 0)
}
