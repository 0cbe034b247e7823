use std::time::Duration;

use super::{
    FinishReason, Network, NewSequence, Pacing, SampleRequest, ScheduledSequence, SequenceId, SequenceUpdate,
    pacing::{StreamPacing, Wait},
};
use crate::{
    kv::{BlockPool, BlockTable},
    sampling::{SampledToken, SamplingParams},
};

/// A sequence in the scheduler's queues.
#[derive(Clone, Debug)]
pub(super) struct Sequence {
    pub(super) id: SequenceId,
    /// Its place in order of arrival: both queues are sorted by it, so that preemption never costs a sequence its turn.
    pub(super) order: u64,
    /// The prompt and what has been generated. All but the last are computed while it decodes.
    pub(super) tokens: Vec<u32>,
    num_prompt_tokens: usize,
    /// It ends when it has this many tokens.
    max_len: usize,
    stop_token_ids: Vec<u32>,
    sampling: SamplingParams,
    pub(super) streamed: bool,
    pub(super) arrival: Duration,
    pub(super) first_scheduled: Option<Duration>,
    /// Number of `tokens` whose KV is stored in `block_table`.
    pub(super) num_computed_tokens: usize,
    /// Covers `tokens` while running, so that a prompt once admitted never stops half-way for want of blocks.
    pub(super) block_table: BlockTable,
    /// Tokens that the step being planned, or in flight, computes.
    pub(super) num_scheduled_tokens: usize,
    pub(super) preemptions: u32,
    /// Cancelled while in a step; it goes when the step is done.
    pub(super) cancelled: bool,
    pub(super) pacing: StreamPacing,
}

impl Sequence {
    /// `limit` is the number of tokens at which any sequence ends.
    pub(super) fn new(new: NewSequence, order: u64, limit: usize) -> Self {
        Self {
            id: new.id,
            order,
            num_prompt_tokens: new.prompt.len(),
            max_len: (new.prompt.len() + new.max_tokens.max(1)).min(limit),
            tokens: new.prompt,
            stop_token_ids: new.stop_token_ids,
            sampling: new.sampling,
            streamed: new.streamed,
            arrival: new.arrival,
            first_scheduled: None,
            num_computed_tokens: 0,
            block_table: BlockTable::default(),
            num_scheduled_tokens: 0,
            preemptions: 0,
            cancelled: false,
            pacing: StreamPacing::default(),
        }
    }

    pub(super) fn num_output_tokens(&self) -> usize {
        self.tokens.len() - self.num_prompt_tokens
    }

    /// Tokens still to be computed before the next can be sampled: 1 while it decodes.
    pub(super) fn num_uncomputed_tokens(&self) -> usize {
        self.tokens.len() - self.num_computed_tokens
    }

    /// Whether its link is behind, so that others go first.
    pub(super) fn is_paced(&self) -> bool {
        self.pacing.paced_since.is_some()
    }

    /// Whether it gets nothing in the step that is being planned.
    pub(super) fn sits_out(&self) -> bool {
        self.pacing.sits_out
    }

    /// Whether the step in flight samples its next token.
    pub(super) fn samples(&self) -> bool {
        self.num_scheduled_tokens > 0 && self.num_scheduled_tokens == self.num_uncomputed_tokens()
    }

    /// Whether it sits the next step out: `None`, or why. Work that is not streamed is never paced.
    pub(super) fn look(&mut self, pacing: Pacing, now: Duration, network: &dyn Network) -> Option<Wait> {
        let id = self.id;
        if self.streamed { self.pacing.look(pacing, now, || network.stream(id)) } else { None }
    }

    /// Its share of the step.
    pub(super) fn scheduled(&self, pool: &BlockPool) -> ScheduledSequence {
        let start = self.num_computed_tokens;
        let end = start + self.num_scheduled_tokens;
        let sample = self.samples().then(|| SampleRequest::after(&self.sampling, &self.tokens, self.num_output_tokens()));
        ScheduledSequence {
            id: self.id,
            tokens: self.tokens[start..end].to_vec(),
            start,
            block_table: self.block_table.blocks()[..pool.blocks_for(end)].to_vec(),
            sample,
            num_draft_tokens: 0,
        }
    }

    /// Appends a sampled token and says whether it is the last.
    pub(super) fn push(&mut self, token: u32) -> Option<FinishReason> {
        self.tokens.push(token);
        if self.stop_token_ids.contains(&token) {
            Some(FinishReason::Stop)
        } else if self.tokens.len() >= self.max_len {
            Some(FinishReason::Length)
        } else {
            None
        }
    }

    /// What the token just pushed means for those who wait for it.
    pub(super) fn update(&mut self, token: SampledToken, finish: Option<FinishReason>) -> SequenceUpdate {
        let waited = self.first_scheduled.unwrap_or(self.arrival).saturating_sub(self.arrival);
        SequenceUpdate {
            id: self.id,
            token,
            finish,
            cached_tokens: (self.num_output_tokens() == 1).then_some(0),
            queued: (self.num_output_tokens() == 1).then_some(waited),
            preemptions: self.preemptions,
            paced: std::mem::take(&mut self.pacing.sat_out),
        }
    }

    /// Throws its KV away; it will be computed again.
    pub(super) fn preempt(&mut self, pool: &mut BlockPool) {
        self.block_table.release(pool);
        self.num_computed_tokens = 0;
        self.num_scheduled_tokens = 0;
        self.preemptions += 1;
    }
}
