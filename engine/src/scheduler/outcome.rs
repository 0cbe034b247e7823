//! What a step came to: computed tokens, sampled tokens, drafts that were right, sequences that are done.

use std::time::Duration;

use super::{
    Scheduler, SequenceId, SequenceUpdate, StepOutput, StepPlan,
    flight::{InFlight, Share},
    queued::Rank,
};
use crate::sampling::SampledToken;

/// Prompt tokens of a step that tells what one costs, where the device does not say how many keep it busy.
const TELLING_PREFILL: usize = 64;

/// Where a sequence is when its step comes back.
#[derive(Clone, Copy)]
enum Queue {
    Running,
    Waiting,
    Ending,
}

/// What a step brought, as far as it has been taken in.
struct Taken {
    /// The rows to come.
    sampled: std::vec::IntoIter<(SequenceId, SampledToken)>,
    updates: Vec<SequenceUpdate>,
    /// Those whose forks may start.
    leaders: Vec<Rank>,
    now: Duration,
}

impl Scheduler {
    /// Takes in what the oldest step in flight computed and sampled. A sequence whose draft was right has several updates, in order.
    ///
    /// # Panics
    /// When `plan` is not that step or `output` is not its answer: a bug of the executor.
    pub fn apply(&mut self, plan: &StepPlan, output: StepOutput, now: Duration) -> Vec<SequenceUpdate> {
        let flight = self.in_flight.pop_front().filter(|flight| flight.step == plan.step).expect("the oldest step in flight is applied");
        assert_eq!(output.step, plan.step, "the executor answered another step");
        for (scores, scored) in plan.scores.iter().zip(output.scored) {
            let id = plan.sequences[scores.sequence].id;
            if let Some(sequence) = self.running.iter_mut().find(|s| s.id == id) {
                sequence.prompt_logprobs.extend(scored);
            }
        }
        self.note_time(&flight, plan, now);
        let mut taken =
            Taken { sampled: output.sampled.into_iter(), updates: Vec::with_capacity(flight.shares.len()), leaders: Vec::new(), now };
        let (mut next, mut any_done) = (0, false);
        for share in &flight.shares {
            next += self.running[next..].iter().take_while(|s| s.rank < share.rank).count();
            match self.running.get(next).filter(|s| s.rank == share.rank) {
                Some(_) => {
                    let is_done = self.take_share(Queue::Running, next, share, &mut taken);
                    self.running[next].is_done = is_done;
                    any_done |= is_done;
                }
                None => self.take_aside(share, &mut taken),
            }
        }
        if any_done {
            self.running.retain(|s| !s.is_done);
        }
        self.release_forks(&taken.leaders);
        taken.updates
    }

    /// The share of a sequence that does not run any more: it was preempted, reached its length, or is gone.
    fn take_aside(&mut self, share: &Share, taken: &mut Taken) {
        if let Some(at) = self.ending.iter().position(|s| s.rank == share.rank) {
            if self.take_share(Queue::Ending, at, share, taken) {
                self.ending.remove(at);
            }
        } else if let Ok(at) = self.waiting.binary_search_by_key(&share.rank, |s| s.rank) {
            if self.take_share(Queue::Waiting, at, share, taken) {
                self.waiting.remove(at);
            }
        } else {
            taken.sampled.by_ref().take(share.rows).for_each(drop);
        }
    }

    /// Takes in what a step did for one sequence, and says whether that is over.
    fn take_share(&mut self, queue: Queue, at: usize, share: &Share, taken: &mut Taken) -> bool {
        let Self { running, waiting, ending, pool, host, accounts, config, last, .. } = self;
        let sequence = match queue {
            Queue::Running => &mut running[at],
            Queue::Waiting => &mut waiting[at],
            Queue::Ending => &mut ending[at],
        };
        sequence.land(share);
        let mut is_done = sequence.cancelled;
        let mut num_computed = share.end;
        if share.rows > 0 {
            let is_first = sequence.num_output_tokens() == 0;
            let before = sequence.tokens.len();
            let (mut is_right, mut is_prepaid) = (true, share.is_prepaid);
            for row in 0..share.rows {
                let (id, token) = taken.sampled.next().expect("the executor samples for every sequence that asks");
                assert_eq!(id, sequence.id, "the executor keeps the order of the plan");
                if is_done || !is_right {
                    continue;
                }
                let value = token.token;
                let finish = sequence.push(value);
                sequence.pacing.token_sent(config.stream_rate_cap, taken.now);
                if !std::mem::take(&mut is_prepaid) {
                    accounts.token_sampled(sequence.owners, taken.now);
                }
                taken.updates.push(sequence.update(token, finish));
                is_done |= finish.is_some();
                is_right = share.drafts.get(row) == Some(&value);
            }
            num_computed = sequence.tokens.len() - 1;
            if !share.drafts.is_empty() && !sequence.block_table.is_empty() {
                sequence.num_computed_tokens = num_computed;
            }
            if !share.drafts.is_empty() && !sequence.cancelled {
                let accepted = sequence.tokens.len() - before - 1;
                last.drafts += 1;
                last.draft_tokens += share.drafts.len() as u64;
                last.accepted_draft_tokens += accepted as u64;
                sequence.draft_limit = next_draft_limit(share.drafts.len(), accepted);
            }
            if is_first && sequence.num_forks > 0 {
                taken.leaders.push(sequence.rank);
            }
        }
        sequence.publish(num_computed, pool);
        if is_done {
            sequence.end(pool, host, accounts);
        } else {
            sequence.block_table.truncate(sequence.num_tokens(), pool);
        }
        is_done
    }

    /// Learns how long steps take, and tokens of prompts in those that are mostly prompts.
    fn note_time(&mut self, flight: &InFlight, plan: &StepPlan, now: Duration) {
        // The device begins with it when it has been planned and the one before is done.
        let began = flight.planned_at.max(std::mem::replace(&mut self.applied_at, now));
        let took = now.saturating_sub(began);
        if plan.sequences.is_empty() {
            return;
        }
        self.step_time = if self.step_time.is_zero() { took } else { (self.step_time * 3 + took) / 4 };
        let copies_nothing = plan.offload.is_empty() && plan.onload.is_empty();
        // A small step takes as long as one with more tokens, which says little of what a token of a long prompt costs.
        let enough = match self.config.prefill_quantum {
            0 => TELLING_PREFILL.min(self.config.max_num_batched_tokens / 4),
            quantum => quantum.min(self.config.max_num_batched_tokens / 4),
        };
        let tells = flight.prefill_tokens >= enough || self.prefill_token_s.is_none();
        if copies_nothing && tells && flight.prefill_tokens > flight.decode_tokens {
            let latest = took.as_secs_f64() / plan.num_tokens() as f64;
            self.prefill_token_s = Some(self.prefill_token_s.map_or(latest, |before| 0.75 * before + 0.25 * latest));
        }
    }

    /// Lets those start whose prompt has been computed.
    fn release_forks(&mut self, leaders: &[Rank]) {
        if leaders.is_empty() {
            return;
        }
        for fork in self.waiting.iter_mut().filter_map(|s| s.fork.as_mut()) {
            fork.prompt_computed |= leaders.contains(&fork.leader);
        }
    }
}

/// Drafts grow while they are right and shrink while they are wrong, so that text which does not repeat itself costs little.
fn next_draft_limit(drafted: usize, accepted: usize) -> usize {
    if accepted == drafted { drafted * 2 } else { (accepted + 1).max(drafted / 2) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        sampling::{SampledToken, SamplingParams},
        scheduler::{Network, NewSequence, SchedulerConfig, StreamSignal},
    };

    struct NoNetwork;

    impl Network for NoNetwork {
        fn health_factor(&self) -> f64 {
            1.0
        }

        fn stream(&self, _: SequenceId) -> Option<StreamSignal> {
            None
        }
    }

    #[test]
    fn small_steps_do_not_say_what_a_prompts_token_costs() {
        let mut scheduler = Scheduler::new(SchedulerConfig::default());
        let mut now = Duration::ZERO;
        let mut step = |id: u64, num_tokens: usize| {
            let prompt = vec![id as u32; num_tokens];
            scheduler.add(NewSequence::new(SequenceId(id), prompt, 1, SamplingParams::greedy())).unwrap();
            let plan = scheduler.plan(now, &NoNetwork).unwrap();
            let token = SampledToken { token: 1, logprob: None, top: Vec::new() };
            let output = StepOutput { step: plan.step, sampled: vec![(SequenceId(id), token)], ..StepOutput::default() };
            now += Duration::from_millis(100);
            scheduler.apply(&plan, output, now);
            scheduler.prefill_token_s.unwrap()
        };
        assert_eq!(step(0, 10), 0.01, "better than nothing");
        let known = step(1, 100);
        assert!(known < 0.01);
        assert_eq!(step(2, 10), known);
        assert!(step(3, 100) < known);
    }
}
