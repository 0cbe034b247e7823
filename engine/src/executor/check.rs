use crate::scheduler::StepPlan;

/// What a plan may ask of an executor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) num_blocks: usize,
    pub(super) num_host_blocks: usize,
    pub(super) block_size: usize,
    pub(super) vocab_size: usize,
    pub(super) max_num_batched_tokens: usize,
}

impl Limits {
    /// Kernels index memory by what a plan says, and plans may come from a file or another host: nothing out of range passes here.
    /// The step before this one sampled `previous_rows`.
    pub(super) fn check(&self, plan: &StepPlan, previous_rows: usize) -> Result<(), String> {
        let tokens = plan.num_tokens();
        if tokens > self.max_num_batched_tokens {
            return Err(format!("it has {tokens} tokens, more than max_num_batched_tokens, {}", self.max_num_batched_tokens));
        }
        if let Some(copy) = plan.copies.iter().find(|c| c.from == c.to || c.from.0.max(c.to.0) as usize >= self.num_blocks) {
            return Err(format!("it copies block {} to {} of {}", copy.from.0, copy.to.0, self.num_blocks));
        }
        for transfer in plan.offload.iter().chain(&plan.onload) {
            let (device, host) = (transfer.device.0, transfer.host.0);
            if device as usize >= self.num_blocks || host as usize >= self.num_host_blocks {
                let (blocks, host_blocks) = (self.num_blocks, self.num_host_blocks);
                return Err(format!("it copies between block {device} of {blocks} and block {host} of {host_blocks} in host memory"));
            }
        }
        for sequence in &plan.sequences {
            let fail = |reason: String| Err(format!("sequence {} {reason}", sequence.id.0));
            if sequence.tokens.is_empty() {
                return fail("has no tokens".into());
            }
            if let Some(token) = sequence.tokens.iter().find(|&&t| t as usize >= self.vocab_size) {
                return fail(format!("has token {token}, outside the vocabulary of {}", self.vocab_size));
            }
            let end = sequence.start.saturating_add(sequence.tokens.len());
            if sequence.block_table.len() < end.div_ceil(self.block_size) {
                return fail(format!("has {} blocks for {end} positions", sequence.block_table.len()));
            }
            let drafts = sequence.num_draft_tokens;
            if drafts > 0 && (sequence.sample.is_none() || drafts >= sequence.tokens.len()) {
                return fail(format!("has {drafts} drafts among {} tokens", sequence.tokens.len()));
            }
            if let Some(row) = sequence.pending.filter(|&row| row >= previous_rows || drafts > 0) {
                return fail(format!(
                    "has {drafts} drafts after the token of row {row} of the {previous_rows} that the step before sampled"
                ));
            }
            if let Some(block) = sequence.block_table.iter().find(|b| b.0 as usize >= self.num_blocks) {
                return fail(format!("names block {} of {}", block.0, self.num_blocks));
            }
        }
        for scores in &plan.scores {
            let fits = plan.sequences.get(scores.sequence).is_some_and(|sequence| scores.targets.len() <= sequence.tokens.len());
            if !fits {
                return Err(format!("it scores {} tokens of the sequence at place {}", scores.targets.len(), scores.sequence));
            }
            if let Some(token) = scores.targets.iter().find(|&&t| t as usize >= self.vocab_size) {
                return Err(format!("it scores token {token}, outside the vocabulary of {}", self.vocab_size));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kv::{BlockId, HostBlockId},
        sampling::SamplingParams,
        scheduler::{BlockCopy, BlockTransfer, PromptScores, SampleRequest, ScheduledSequence, SequenceId},
    };

    #[test]
    fn refuses_what_would_index_out_of_range() {
        let limits = Limits { num_blocks: 4, num_host_blocks: 2, block_size: 16, vocab_size: 100, max_num_batched_tokens: 32 };
        let check = |tokens: Vec<u32>, start: usize, table: &[u32]| {
            let block_table = table.iter().copied().map(BlockId).collect();
            let sequence =
                ScheduledSequence { id: SequenceId(7), tokens, start, block_table, sample: None, num_draft_tokens: 0, pending: None };
            limits.check(&StepPlan { sequences: vec![sequence], ..StepPlan::default() }, 0)
        };
        assert_eq!(check(vec![1; 16], 16, &[3, 0]), Ok(()));
        assert_eq!(check(vec![1; 33], 0, &[0, 1, 2]), Err("it has 33 tokens, more than max_num_batched_tokens, 32".into()));
        assert_eq!(check(vec![], 0, &[0]), Err("sequence 7 has no tokens".into()));
        assert_eq!(check(vec![100], 0, &[0]), Err("sequence 7 has token 100, outside the vocabulary of 100".into()));
        assert_eq!(check(vec![1], 32, &[0, 1]), Err("sequence 7 has 2 blocks for 33 positions".into()));
        assert_eq!(check(vec![1], 0, &[4]), Err("sequence 7 names block 4 of 4".into()));
        let copy = |from, to| StepPlan { copies: vec![BlockCopy { from: BlockId(from), to: BlockId(to) }], ..StepPlan::default() };
        assert_eq!(limits.check(&copy(3, 0), 0), Ok(()));
        assert_eq!(limits.check(&copy(0, 4), 0), Err("it copies block 0 to 4 of 4".into()));
        assert_eq!(limits.check(&copy(2, 2), 0), Err("it copies block 2 to 2 of 4".into()));
        let transfer = |device, host| vec![BlockTransfer { device: BlockId(device), host: HostBlockId(host) }];
        let offload = |device, host| StepPlan { offload: transfer(device, host), ..StepPlan::default() };
        let onload = |device, host| StepPlan { onload: transfer(device, host), ..StepPlan::default() };
        assert_eq!((limits.check(&offload(3, 1), 0), limits.check(&onload(3, 1), 0)), (Ok(()), Ok(())));
        let refused = |device, host| Err(format!("it copies between block {device} of 4 and block {host} of 2 in host memory"));
        assert_eq!((limits.check(&offload(4, 1), 0), limits.check(&onload(3, 2), 0)), (refused(4, 1), refused(3, 2)));
    }

    #[test]
    fn refuses_drafts_and_scores_that_are_not_there() {
        let limits = Limits { num_blocks: 4, num_host_blocks: 0, block_size: 16, vocab_size: 100, max_num_batched_tokens: 32 };
        let sequence = |num_draft_tokens, samples: bool| ScheduledSequence {
            id: SequenceId(7),
            tokens: vec![1; 3],
            start: 0,
            block_table: vec![BlockId(0)],
            sample: samples.then(|| SampleRequest::after(&SamplingParams::greedy(), &[1; 3], 1)),
            num_draft_tokens,
            pending: None,
        };
        let drafts = |num, samples| limits.check(&StepPlan { sequences: vec![sequence(num, samples)], ..StepPlan::default() }, 0);
        assert_eq!(drafts(2, true), Ok(()));
        assert_eq!(drafts(2, false), Err("sequence 7 has 2 drafts among 3 tokens".into()));
        assert_eq!(drafts(3, true), Err("sequence 7 has 3 drafts among 3 tokens".into()));
        let scores = |sequence_place, targets: &[u32]| {
            let scores = vec![PromptScores { sequence: sequence_place, targets: targets.to_vec(), top: 0 }];
            limits.check(&StepPlan { sequences: vec![sequence(0, false)], scores, ..StepPlan::default() }, 0)
        };
        assert_eq!(scores(0, &[99, 0, 1]), Ok(()));
        assert_eq!(scores(0, &[1; 4]), Err("it scores 4 tokens of the sequence at place 0".into()));
        let pending = |num_draft_tokens, row, rows| {
            let pending = ScheduledSequence { pending: Some(row), ..sequence(num_draft_tokens, true) };
            limits.check(&StepPlan { sequences: vec![pending], ..StepPlan::default() }, rows)
        };
        assert_eq!(pending(0, 3, 4), Ok(()));
        let refused = |drafts, row, rows| {
            Err(format!("sequence 7 has {drafts} drafts after the token of row {row} of the {rows} that the step before sampled"))
        };
        assert_eq!((pending(0, 4, 4), pending(1, 0, 1)), (refused(0, 4, 4), refused(1, 0, 1)));
        assert_eq!(scores(1, &[1]), Err("it scores 1 tokens of the sequence at place 1".into()));
        assert_eq!(scores(0, &[1, 100]), Err("it scores token 100, outside the vocabulary of 100".into()));
    }
}
