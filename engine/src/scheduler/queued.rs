//! A sequence as the queues hold it: what it is, how far it has got, and what it takes of steps.
//!
//! Steps in flight count as done in all that says how far it has got; only their tokens are not known.

use std::{sync::Arc, time::Duration};

use super::{
    ExpiryCause, FinishReason, Network, NewSequence, Pacing, PromptScores, SampleRequest, ScheduledSequence, SchedulerConfig, SequenceId,
    SequenceUpdate, StreamSignal,
    caps::{Accounts, Owners},
    offload::HostTable,
    pacing::{Pending, StreamPacing, Wait},
};
use crate::{
    kv::{BlockPool, BlockTable, CacheScope, HostPool},
    sampling::{SampledToken, SamplingParams, ScoredToken},
};

/// Stands for a token that is not known yet.
const PLACEHOLDER: u32 = 0;

/// Who goes first: the lowest. Both queues are sorted by it, so that preemption never costs a sequence its turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// 0 for all unless the policy looks at priorities.
    pub(super) priority: i64,
    pub(super) arrival: u64,
}

/// Where a sequence's prompt is computed, if not by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fork {
    pub(super) leader: Rank,
    /// The leader has got as far as its first token.
    pub(super) prompt_computed: bool,
}

/// A sequence in the scheduler's queues.
#[derive(Clone, Debug)]
pub(super) struct Sequence {
    pub(super) id: SequenceId,
    pub(super) rank: Rank,
    /// The prompt and what has been generated, as far as it is known. All but the last are computed while it decodes.
    pub(super) tokens: Vec<u32>,
    /// Tokens that follow them, which steps in flight will have sampled, and those of them that its owners have yet to be charged for.
    pub(super) num_pending: usize,
    pub(super) num_uncharged: usize,
    /// The row of the latest of these among those of its step.
    pub(super) pending_row: usize,
    /// Steps in flight that it has a share of.
    pub(super) steps_in_flight: usize,
    num_prompt_tokens: usize,
    /// It ends when it has this many tokens.
    max_len: usize,
    stop_token_ids: Vec<u32>,
    sampling: SamplingParams,
    pub(super) streamed: bool,
    pub(super) arrival: Duration,
    deadline: Option<Duration>,
    start_by: Option<Duration>,
    pub(super) first_scheduled: Option<Duration>,
    /// Among whom its blocks may be found again; `None` neither looks for blocks nor makes its own known.
    pub(super) scope: Option<CacheScope>,
    pub(super) fork: Option<Fork>,
    /// Sequences that wait for this one to compute their prompt.
    pub(super) num_forks: usize,
    /// Prompt tokens that were found when it was first scheduled.
    pub(super) num_cached_tokens: usize,
    /// Number of tokens whose KV is stored in `block_table`, once the steps in flight are done.
    pub(super) num_computed_tokens: usize,
    /// Covers its tokens, pending ones included, while it has a share of steps, so that a prompt once admitted never stops half-way for want of blocks.
    pub(super) block_table: BlockTable,
    /// Its KV in host memory: while it waits, and in the plan that brings it back.
    pub(super) host: Option<HostTable>,
    /// The step whose plan started it last.
    pub(super) started_in: Option<u64>,
    /// Share of the time in which it ran of late, 0..=1: how much of a seat it takes.
    pub(super) presence: f64,
    /// What its link carries, as far as it is known: a share of what a sequence gets that runs in every step, at most 1.
    pub(super) deliverable: f64,
    /// Since when others have been let past it because its link carries little.
    pub(super) passed_over_since: Option<Duration>,
    /// Tokens that the step being planned computes; the last `drafts.len()` of them are drafts.
    pub(super) num_scheduled_tokens: usize,
    /// Guesses at the tokens after `tokens`, for the step being planned.
    pub(super) drafts: Vec<u32>,
    /// Most tokens of its next draft: fewer after guesses that failed.
    pub(super) draft_limit: usize,
    /// What the step being planned may still give a long prompt once the others have theirs.
    pub(super) prefill_allowance: usize,
    /// Log-probabilities of the prompt's tokens but the first, as far as they are computed, where they are wanted.
    pub(super) prompt_logprobs: Vec<ScoredToken>,
    pub(super) preemptions: u32,
    /// Cancelled while in a step; it goes with the next plan, or when the step is taken in.
    pub(super) cancelled: bool,
    /// It has ended, and goes when its step has been taken in.
    pub(super) is_done: bool,
    pub(super) pacing: StreamPacing,
    /// Whose caps bind it.
    pub(super) owners: Owners,
    /// Its next token was charged to its owners when it was let in.
    pub(super) is_prepaid: bool,
    /// A cap keeps it out of the step that is being planned.
    pub(super) is_capped: bool,
    /// The number after that of the step that last gave it a token, or started it.
    pub(super) last_decoded: u64,
}

impl Sequence {
    /// `limit` is the number of tokens at which any sequence ends.
    pub(super) fn new(new: NewSequence, rank: Rank, limit: usize, scope: Option<CacheScope>, owners: Owners) -> Self {
        Self {
            id: new.id,
            rank,
            num_prompt_tokens: new.prompt.len(),
            max_len: (new.prompt.len().saturating_add(new.max_tokens.max(1))).min(limit),
            tokens: new.prompt,
            num_pending: 0,
            num_uncharged: 0,
            pending_row: 0,
            steps_in_flight: 0,
            stop_token_ids: new.stop_token_ids,
            sampling: new.sampling,
            streamed: new.streamed,
            arrival: new.arrival,
            deadline: new.deadline,
            start_by: new.start_by,
            first_scheduled: None,
            scope,
            fork: None,
            num_forks: 0,
            num_cached_tokens: 0,
            num_computed_tokens: 0,
            block_table: BlockTable::default(),
            host: None,
            started_in: None,
            presence: 1.0,
            deliverable: 1.0,
            passed_over_since: None,
            num_scheduled_tokens: 0,
            drafts: Vec::new(),
            draft_limit: usize::MAX,
            prefill_allowance: 0,
            prompt_logprobs: Vec::new(),
            preemptions: 0,
            cancelled: false,
            is_done: false,
            pacing: StreamPacing::default(),
            owners,
            is_prepaid: false,
            is_capped: false,
            last_decoded: 0,
        }
    }

    pub(super) fn num_prompt_tokens(&self) -> usize {
        self.num_prompt_tokens
    }

    pub(super) fn num_output_tokens(&self) -> usize {
        self.tokens.len() - self.num_prompt_tokens
    }

    /// Its length once the steps in flight are done.
    pub(super) fn num_tokens(&self) -> usize {
        self.tokens.len() + self.num_pending
    }

    /// Tokens still to be computed before the next can be sampled: 1 while it decodes.
    pub(super) fn num_uncomputed_tokens(&self) -> usize {
        self.num_tokens() - self.num_computed_tokens
    }

    /// Whether a step in flight samples the last token that it can have.
    pub(super) fn ends_in_flight(&self) -> bool {
        self.num_pending > 0 && self.num_tokens() >= self.max_len
    }

    /// Whether the tokens so far must be known where the next is sampled.
    pub(super) fn needs_known_tokens(&self) -> bool {
        self.sampling.depends_on_history()
    }

    /// Whether its prompt is scored.
    pub(super) fn reads_prompt_logits(&self) -> bool {
        self.sampling.reads_prompt_logits()
    }

    /// When its time is up.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        let start_by = self.start_by.filter(|_| self.first_scheduled.is_none());
        [self.deadline, start_by].into_iter().flatten().min()
    }

    /// Which of its times is up at `now`.
    pub(super) fn expiry_cause(&self, now: Duration) -> ExpiryCause {
        if self.deadline.is_some_and(|deadline| deadline <= now) { ExpiryCause::Deadline } else { ExpiryCause::Queue }
    }

    /// Whether it generates: one token gives it the next.
    pub(super) fn decodes(&self) -> bool {
        self.num_uncomputed_tokens() == 1
    }

    /// Whether its link is behind, so that others go first.
    pub(super) fn is_paced(&self) -> bool {
        self.pacing.paced_since.is_some()
    }

    /// Whether it gets nothing in the step that is being planned.
    pub(super) fn sits_out(&self) -> bool {
        self.pacing.sits_out || self.is_capped
    }

    /// Tokens that the step being planned samples for it: none, one, or one more than it has drafts.
    pub(super) fn num_sampled_rows(&self) -> usize {
        let known = self.num_scheduled_tokens - self.drafts.len();
        if known > 0 && known == self.num_uncomputed_tokens() { self.drafts.len() + 1 } else { 0 }
    }

    /// Most drafts that make sense: the token after the last must be within its length and its link's credit.
    pub(super) fn max_drafts(&self) -> usize {
        // Behind a step in flight, blocks for guesses would go when that step is taken in.
        if self.needs_known_tokens() || self.steps_in_flight > 0 {
            return 0;
        }
        let length = self.max_len.saturating_sub(self.tokens.len() + 1);
        length.min(self.pacing.credit_tokens.saturating_sub(1)).min(self.draft_limit)
    }

    /// Whether blocks that are known already may stand for its own.
    pub(super) fn looks_up_prefix(&self) -> bool {
        !self.reads_prompt_logits() || self.num_output_tokens() > 0
    }

    /// Whether it has been sitting steps out for want of credit for at least so long.
    pub(super) fn is_stalled(&self, now: Duration, time: Duration) -> bool {
        self.pacing.paced_since.is_some_and(|since| now.saturating_sub(since) >= time)
    }

    /// Whether it sits the next step out: `None`, or why. Work that is not streamed is never paced. Steps take about `step_time`.
    pub(super) fn look(&mut self, config: &SchedulerConfig, now: Duration, step_time: Duration, network: &dyn Network) -> Option<Wait> {
        if !self.streamed {
            return None;
        }
        let mut signal = None;
        let (id, pacing) = (self.id, config.pacing);
        let pending = Pending { tokens: self.num_pending, rate_cap: config.stream_rate_cap };
        let wait = self.pacing.look(pacing, now, pending, || {
            signal = network.stream(id);
            signal
        });
        let link = signal.filter(|_| pacing == Pacing::PerConnection);
        self.deliverable = link.map_or(1.0, |signal| deliverable_share(&signal, step_time));
        wait
    }

    /// Its share of the step.
    pub(super) fn scheduled(&self, pool: &BlockPool) -> ScheduledSequence {
        let start = self.num_computed_tokens;
        let end = start + self.num_scheduled_tokens;
        let output_position = self.num_output_tokens() + self.num_pending;
        let sample = (self.num_sampled_rows() > 0).then(|| SampleRequest::after(&self.sampling, &self.tokens, output_position));
        let mut tokens = Vec::with_capacity(self.num_scheduled_tokens);
        if self.num_pending > 0 {
            tokens.push(PLACEHOLDER);
        } else {
            tokens.extend(&self.tokens[start..end - self.drafts.len()]);
            tokens.extend(&self.drafts);
        }
        ScheduledSequence {
            id: self.id,
            tokens,
            start,
            block_table: self.block_table.blocks()[..pool.blocks_for(end)].to_vec(),
            sample,
            num_draft_tokens: self.drafts.len(),
            pending: (self.num_pending > 0).then_some(self.pending_row),
        }
    }

    /// What its share of the step tells of its prompt, where that is wanted; `sequence` is its place in the plan.
    pub(super) fn scores(&self, sequence: usize) -> Option<PromptScores> {
        let top = self.sampling.prompt_logprobs.filter(|_| self.num_output_tokens() == 0)?;
        let end = (self.num_computed_tokens + self.num_scheduled_tokens + 1).min(self.num_prompt_tokens);
        let targets = self.tokens.get(self.num_computed_tokens + 1..end)?.to_vec();
        (!targets.is_empty()).then_some(PromptScores { sequence, targets, top })
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
        let is_first = self.num_output_tokens() == 1;
        SequenceUpdate {
            id: self.id,
            token,
            finish,
            queued: is_first.then_some(waited),
            cached_tokens: is_first.then_some(self.num_cached_tokens),
            prompt_logprobs: (is_first && self.reads_prompt_logits()).then(|| std::mem::take(&mut self.prompt_logprobs)),
            preemptions: self.preemptions,
            paced: std::mem::take(&mut self.pacing.sat_out),
        }
    }

    /// Lets others, and itself after a preemption, find the first `num_computed` tokens, which steps that came back have computed.
    pub(super) fn publish(&mut self, num_computed: usize, pool: &mut BlockPool) {
        if let Some(scope) = self.scope.as_ref().filter(|_| !self.block_table.is_empty()) {
            self.block_table.publish(scope, &self.tokens[..num_computed], pool);
        }
    }

    /// Gives up its place: its KV, and what it counts for its owners.
    pub(super) fn end(&mut self, pool: &mut BlockPool, host: &mut HostPool, accounts: &mut Accounts) {
        self.stop(pool, accounts);
        self.host.take().into_iter().for_each(|table| table.release(host));
        accounts.leave(self.owners);
    }

    /// Gives its blocks back and its places among those of its owners that run.
    pub(super) fn stop(&mut self, pool: &mut BlockPool, accounts: &mut Accounts) {
        if !self.block_table.is_empty() {
            self.block_table.release(pool);
            accounts.stopped(self.owners);
        }
    }

    /// Gives its blocks back; what is neither in host memory nor found again will be computed again.
    pub(super) fn leave_device(&mut self, pool: &mut BlockPool, accounts: &mut Accounts) {
        self.stop(pool, accounts);
        self.num_computed_tokens = 0;
        self.num_scheduled_tokens = 0;
        self.is_capped = false;
        self.drafts.clear();
        // They come again with the prompt, if they have not gone out.
        self.prompt_logprobs.clear();
    }
}

/// What a link carries, as a share of what a stream gets that runs in every step.
fn deliverable_share(signal: &StreamSignal, step_time: Duration) -> f64 {
    let Some(rate) = signal.delivery_rate_bytes_per_s else { return 1.0 };
    let share = rate / f64::from(signal.chunk_bytes.max(1)) * step_time.as_secs_f64();
    // Before the first step nothing is known, and NaN is no reason to wait.
    if step_time.is_zero() || share.is_nan() { 1.0 } else { share.clamp(0.0, 1.0) }
}

/// Among whom a sequence's blocks may be found.
pub(super) fn cache_scope(new: &NewSequence, enable_prefix_caching: bool) -> Option<CacheScope> {
    match (enable_prefix_caching, &new.cache_salt) {
        (true, None) => Some(CacheScope::Public),
        (true, Some(salt)) => Some(CacheScope::Salted(Arc::clone(salt))),
        (false, _) => new.group.map(|leader| CacheScope::Group(leader.0)),
    }
}
