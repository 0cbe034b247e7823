use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use super::{Executor, ExecutorError, check::Limits};
use crate::{
    backend::{Backend, BackendError, RaggedBatch},
    kv::{BlockId, HostBlockId},
    model::{Hidden, Model, PoolingConfig},
    sampling::{SampledToken, ScoredToken},
    scheduler::{BlockTransfer, PromptScores, SampleRequest, ScheduledSequence, SequenceId, StepOutput, StepPlan},
};

/// Rows of prompts whose logits are in memory at a time.
const SCORED_ROWS: usize = 64;

/// Blocks whose copies are timed at the start, and how often.
const COPIES_TIMED: usize = 16;
const ROUNDS_TIMED: usize = 4;

/// How much KV cache an executor holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheSize {
    pub num_blocks: usize,
    /// Blocks in host memory.
    pub num_host_blocks: usize,
    /// Tokens in a block.
    pub block_size: usize,
}

/// A whole model on one device of this process.
pub struct LocalExecutor<B: Backend> {
    backend: B,
    model: Box<dyn Model<B>>,
    kv: B::KvCache,
    host_kv: B::HostKvCache,
    limits: Limits,
    // Kept from step to step, so that a steady state allocates nothing of size.
    hidden: Hidden<B>,
    logits: B::Buffer,
}

impl<B: Backend> LocalExecutor<B> {
    /// Allocates the cache. Plans of more than `max_num_batched_tokens` tokens are refused.
    ///
    /// # Errors
    /// When the device has no room for the cache.
    pub fn new(backend: B, model: Box<dyn Model<B>>, cache: CacheSize, max_num_batched_tokens: usize) -> Result<Self, BackendError> {
        let kv = backend.kv_cache(model.kv_layout(cache.num_blocks, cache.block_size))?;
        let host_kv = backend.host_kv_cache(model.kv_layout(cache.num_host_blocks, cache.block_size))?;
        let limits = Limits {
            num_blocks: cache.num_blocks,
            num_host_blocks: cache.num_host_blocks,
            block_size: cache.block_size,
            vocab_size: model.vocab_size(),
            max_num_batched_tokens,
        };
        Ok(Self { hidden: Hidden::new(&backend), logits: backend.buffer(), backend, model, kv, host_kv, limits })
    }

    /// How long it takes at best to copy a block to the host, on average over a few; nothing where there is no host memory. Call it before any plan
    /// is executed: it writes the first blocks there.
    pub fn block_copy_time(&mut self) -> Duration {
        let count = COPIES_TIMED.min(self.limits.num_blocks).min(self.limits.num_host_blocks) as u32;
        let blocks: Vec<_> = (0..count).map(|i| BlockTransfer { device: BlockId(i), host: HostBlockId(i) }).collect();
        if blocks.is_empty() {
            return Duration::ZERO;
        }
        // Once, the kernel provides the pages; and another process may take the processor.
        let there_and_back = (0..ROUNDS_TIMED).map(|_| {
            let began = Instant::now();
            self.backend.offload(&self.kv, &mut self.host_kv, &blocks);
            self.backend.onload(&mut self.kv, &self.host_kv, &blocks);
            began.elapsed()
        });
        there_and_back.min().unwrap_or_default() / (2 * count)
    }

    /// Log-probabilities of prompt tokens, a few rows at a time, of what the last pass left behind.
    fn score(&mut self, plan: &StepPlan, scores: &PromptScores) -> Result<Vec<ScoredToken>, ExecutorError> {
        let first: usize = plan.sequences[..scores.sequence].iter().map(|s| s.tokens.len()).sum();
        let mut scored = Vec::with_capacity(scores.targets.len());
        for (i, targets) in scores.targets.chunks(SCORED_ROWS).enumerate() {
            let start = (first + i * SCORED_ROWS) as u32;
            let rows = RaggedBatch { logits_rows: (start..start + targets.len() as u32).collect(), ..RaggedBatch::default() };
            self.model.logits(&self.backend, &self.backend.batch(rows), &self.hidden, &mut self.logits);
            let targets: Vec<_> = targets.iter().map(|&token| (token, scores.top)).collect();
            scored.extend(self.backend.score(&self.logits, &targets).map_err(|e| self.failed(&e))?);
        }
        Ok(scored)
    }

    fn failed(&self, error: &BackendError) -> ExecutorError {
        ExecutorError::Device { device: self.backend.name(), reason: error.to_string() }
    }

    /// The vectors of the sequences `ids`, whose prompts are complete.
    fn pool(&self, step: u64, ids: Vec<SequenceId>, pooling: PoolingConfig) -> Result<StepOutput, ExecutorError> {
        if ids.is_empty() {
            return Ok(StepOutput { step, ..StepOutput::default() });
        }
        let vectors = self.backend.read_rows(&self.logits, pooling.normalize);
        let vectors = vectors.map_err(|e| self.failed(&e))?;
        let complete = |id: &SequenceId| (*id, SampledToken { token: 0, logprob: None, top: Vec::new() });
        Ok(StepOutput {
            step,
            sampled: ids.iter().map(complete).collect(),
            pooled: ids.into_iter().zip(vectors).collect(),
            ..StepOutput::default()
        })
    }
}

impl<B: Backend> Executor for LocalExecutor<B> {
    fn execute(&mut self, plan: &StepPlan) -> Result<StepOutput, ExecutorError> {
        self.limits.check(plan).map_err(|reason| ExecutorError::Plan { step: plan.step, reason })?;
        if !plan.offload.is_empty() {
            self.backend.offload(&self.kv, &mut self.host_kv, &plan.offload);
        }
        plan.copies.iter().for_each(|copy| self.backend.copy_block(&mut self.kv, copy.from, copy.to));
        if !plan.onload.is_empty() {
            self.backend.onload(&mut self.kv, &self.host_kv, &plan.onload);
        }
        if plan.sequences.is_empty() {
            return Ok(StepOutput { step: plan.step, ..StepOutput::default() });
        }
        let batch = self.backend.batch(RaggedBatch::new(plan, self.limits.block_size));
        let rows: Vec<(SequenceId, Cow<'_, SampleRequest>)> = plan.sequences.iter().flat_map(sampled_rows).collect();
        let (ids, requests): (Vec<_>, Vec<&SampleRequest>) = rows.iter().map(|(id, request)| (*id, request.as_ref())).unzip();
        let logits = if requests.is_empty() { None } else { Some(&mut self.logits) };
        self.model.forward(&self.backend, &batch, &mut self.kv, &mut self.hidden, logits);
        if let Some(pooling) = self.model.pooling() {
            return self.pool(plan.step, ids, pooling);
        }
        let sample = || self.backend.read_sampled(self.backend.sample(&self.logits, &requests)?);
        let tokens = if requests.is_empty() { Ok(Vec::new()) } else { sample() };
        let tokens = tokens.map_err(|e| self.failed(&e))?;
        let scored = plan.scores.iter().map(|scores| self.score(plan, scores)).collect::<Result<_, _>>()?;
        Ok(StepOutput { step: plan.step, sampled: ids.into_iter().zip(tokens).collect(), scored, ..StepOutput::default() })
    }
}

/// What is sampled for one sequence: nothing, its next token, or that and what follows each of its drafts.
fn sampled_rows(sequence: &ScheduledSequence) -> impl Iterator<Item = (SequenceId, Cow<'_, SampleRequest>)> {
    let after_drafts =
        |request: &SampleRequest, n: usize| SampleRequest { output_position: request.output_position + n, ..request.clone() };
    sequence.sample.iter().flat_map(move |request| {
        let later = (1..=sequence.num_draft_tokens).map(move |n| Cow::Owned(after_drafts(request, n)));
        std::iter::once(Cow::Borrowed(request)).chain(later).map(|request| (sequence.id, request))
    })
}
