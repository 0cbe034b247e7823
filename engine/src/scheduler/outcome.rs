//! What a step came to: computed tokens, sampled tokens, drafts that were right, sequences that are done.

use std::time::Duration;

use super::{Scheduler, SequenceId, SequenceUpdate, StepOutput, StepPlan, running::Rank};

/// Prompt tokens of a step that tells what one costs, where the device does not say how many keep it busy.
const TELLING_PREFILL: usize = 64;

impl Scheduler {
    /// Takes in what a step computed and sampled. A sequence whose draft was right has several updates, in order.
    ///
    /// # Panics
    /// When `plan` is not the step in flight or `output` is not its answer: a bug of the executor.
    pub fn apply(&mut self, plan: &StepPlan, output: StepOutput, now: Duration) -> Vec<SequenceUpdate> {
        assert_eq!(self.in_flight.take(), Some(plan.step), "a step is applied that is not in flight");
        assert_eq!(output.step, plan.step, "the executor answered another step");
        for (scores, scored) in plan.scores.iter().zip(output.scored) {
            let id = plan.sequences[scores.sequence].id;
            if let Some(sequence) = self.running.iter_mut().find(|s| s.id == id) {
                sequence.prompt_logprobs.extend(scored);
            }
        }
        self.note_time(plan, now);
        let Self { running, pool, host, accounts, config, last, .. } = self;
        let mut sampled = output.sampled.into_iter();
        let mut updates = Vec::with_capacity(sampled.len());
        let mut leaders = Vec::new();
        running.retain_mut(|sequence| {
            let rows = sequence.num_sampled_rows();
            let scheduled = std::mem::take(&mut sequence.num_scheduled_tokens);
            let mut is_done = sequence.cancelled;
            if rows == 0 {
                sequence.num_computed_tokens += scheduled;
            } else {
                let is_first = sequence.num_output_tokens() == 0;
                let drafts = std::mem::take(&mut sequence.drafts);
                let before = sequence.tokens.len();
                let mut is_right = true;
                for row in 0..rows {
                    let (id, token) = sampled.next().expect("the executor samples for every sequence that asks");
                    assert_eq!(id, sequence.id, "the executor keeps the order of the plan");
                    if is_done || !is_right {
                        continue;
                    }
                    let value = token.token;
                    let finish = sequence.push(value);
                    sequence.pacing.token_sent(config.stream_rate_cap, now);
                    if !std::mem::take(&mut sequence.is_prepaid) {
                        accounts.token_sampled(sequence.owners, now);
                    }
                    updates.push(sequence.update(token, finish));
                    is_done |= finish.is_some();
                    is_right = drafts.get(row) == Some(&value);
                }
                sequence.num_computed_tokens = sequence.tokens.len() - 1;
                if !drafts.is_empty() && !sequence.cancelled {
                    let accepted = sequence.tokens.len() - before - 1;
                    last.drafts += 1;
                    last.draft_tokens += drafts.len() as u64;
                    last.accepted_draft_tokens += accepted as u64;
                    sequence.draft_limit = next_draft_limit(drafts.len(), accepted);
                }
                if is_first && sequence.num_forks > 0 {
                    leaders.push(sequence.rank);
                }
            }
            sequence.publish(pool);
            if is_done {
                sequence.end(pool, host, accounts);
            } else {
                sequence.block_table.truncate(sequence.tokens.len(), pool);
            }
            !is_done
        });
        self.release_forks(&leaders);
        updates
    }

    /// Learns how long steps take, and tokens of prompts in those that are mostly prompts.
    fn note_time(&mut self, plan: &StepPlan, now: Duration) {
        let took = now.saturating_sub(self.planned_at);
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
        let tells = self.last.prefill_tokens >= enough || self.prefill_token_s.is_none();
        if copies_nothing && tells && self.last.prefill_tokens > self.last.decode_tokens {
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

    /// Drops the sequences of the step in flight, which the executor failed to compute, and names them. All others go on.
    pub fn fail_step(&mut self) -> Vec<SequenceId> {
        if let Some(step) = self.in_flight.take() {
            self.forget_offloaded(step);
        }
        self.drop_running(|s| s.num_scheduled_tokens > 0)
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
