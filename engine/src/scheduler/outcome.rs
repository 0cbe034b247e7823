//! What a step came to: computed tokens, sampled tokens, drafts that were right, sequences that are done.

use std::time::Duration;

use super::{Scheduler, SequenceId, SequenceUpdate, StepOutput, StepPlan, running::Rank};

impl Scheduler {
    /// Takes in what a step computed and sampled. A sequence whose draft was right has several updates, in order.
    ///
    /// # Panics
    /// When `plan` is not the step in flight or `output` is not its answer: a bug of the executor.
    pub fn apply(&mut self, plan: &StepPlan, output: StepOutput, now: Duration) -> Vec<SequenceUpdate> {
        assert_eq!(self.in_flight.take(), Some(plan.step), "a step is applied that is not in flight");
        assert_eq!(output.step, plan.step, "the executor answered another step");
        let Self { running, pool, config, last, .. } = self;
        for (scores, scored) in plan.scores.iter().zip(output.scored) {
            let id = plan.sequences[scores.sequence].id;
            if let Some(sequence) = running.iter_mut().find(|s| s.id == id) {
                sequence.prompt_logprobs.extend(scored);
            }
        }
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
                sequence.block_table.release(pool);
            } else {
                sequence.block_table.truncate(sequence.tokens.len(), pool);
            }
            !is_done
        });
        self.release_forks(&leaders);
        updates
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
        self.in_flight = None;
        self.drop_running(|s| s.num_scheduled_tokens > 0)
    }
}

/// Drafts grow while they are right and shrink while they are wrong, so that text which does not repeat itself costs little.
fn next_draft_limit(drafted: usize, accepted: usize) -> usize {
    if accepted == drafted { drafted * 2 } else { (accepted + 1).max(drafted / 2) }
}
