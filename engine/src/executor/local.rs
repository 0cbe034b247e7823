use std::{
    borrow::Cow,
    collections::VecDeque,
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
    /// Steps that were submitted and not collected, the oldest first.
    in_flight: VecDeque<Issued<B>>,
    /// Rows that the last step sampled, 0 where it failed, and their tokens once these have been collected.
    last_rows: usize,
    last_tokens: Option<Vec<u32>>,
}

/// A step on the device, and what is known of it already.
struct Issued<B: Backend> {
    /// Whole but for the tokens.
    output: StepOutput,
    /// Whose tokens `sampled` will be.
    ids: Vec<SequenceId>,
    sampled: Option<B::Sampled>,
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
        let (hidden, logits) = (Hidden::new(&backend), backend.buffer());
        let in_flight = VecDeque::new();
        Ok(Self { backend, model, kv, host_kv, limits, hidden, logits, in_flight, last_rows: 0, last_tokens: Some(Vec::new()) })
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
            // A device that failed says so in the first step.
            let _ = self.backend.finish();
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

    /// The pass and what follows it, as far as it need not be waited for.
    fn issue(&mut self, plan: &StepPlan, issued: &mut Issued<B>) -> Result<(), ExecutorError> {
        let mut batch = RaggedBatch::new(plan, self.limits.block_size);
        if let Some(tokens) = &self.last_tokens {
            batch.fill_from_previous(tokens);
        }
        let batch = self.backend.batch(batch);
        let rows: Vec<(SequenceId, Cow<'_, SampleRequest>)> = plan.sequences.iter().flat_map(sampled_rows).collect();
        let (ids, requests): (Vec<_>, Vec<&SampleRequest>) = rows.iter().map(|(id, request)| (*id, request.as_ref())).unzip();
        self.backend.pass(&batch, &mut || {
            let logits = if requests.is_empty() { None } else { Some(&mut self.logits) };
            self.model.forward(&self.backend, &batch, &mut self.kv, &mut self.hidden, logits);
        });
        if let Some(pooling) = self.model.pooling() {
            issued.output = self.pool(plan.step, ids, pooling)?;
            return Ok(());
        }
        if !requests.is_empty() {
            issued.sampled = Some(self.backend.sample(&self.logits, &requests).map_err(|e| self.failed(&e))?);
            issued.ids = ids;
        }
        issued.output.scored = plan.scores.iter().map(|scores| self.score(plan, scores)).collect::<Result<_, _>>()?;
        Ok(())
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
    fn submit(&mut self, plan: &StepPlan) -> Result<(), ExecutorError> {
        let most = self.max_in_flight();
        if self.in_flight.len() >= most {
            let reason = format!("{} steps are in flight already, and the device takes {most}", self.in_flight.len());
            return Err(ExecutorError::Plan { step: plan.step, reason });
        }
        let previous_rows = std::mem::take(&mut self.last_rows);
        self.limits.check(plan, previous_rows).map_err(|reason| ExecutorError::Plan { step: plan.step, reason })?;
        if !plan.offload.is_empty() {
            self.backend.offload(&self.kv, &mut self.host_kv, &plan.offload);
        }
        if !plan.copies.is_empty() {
            self.backend.copy_blocks(&mut self.kv, &plan.copies);
        }
        if !plan.onload.is_empty() {
            self.backend.onload(&mut self.kv, &self.host_kv, &plan.onload);
        }
        let mut issued = Issued { output: StepOutput { step: plan.step, ..StepOutput::default() }, ids: Vec::new(), sampled: None };
        if !plan.sequences.is_empty() {
            self.issue(plan, &mut issued)?;
        }
        self.backend.check().map_err(|e| self.failed(&e))?;
        self.last_rows = issued.ids.len();
        self.last_tokens = None;
        self.in_flight.push_back(issued);
        Ok(())
    }

    fn collect(&mut self) -> Result<StepOutput, ExecutorError> {
        let Some(Issued { mut output, ids, sampled }) = self.in_flight.pop_front() else {
            let reason = "no step was submitted that is not collected".to_owned();
            return Err(ExecutorError::Device { device: self.backend.name(), reason });
        };
        if let Some(sampled) = sampled {
            let tokens = self.backend.read_sampled(sampled).map_err(|e| {
                self.last_rows = 0;
                self.failed(&e)
            })?;
            output.sampled = ids.into_iter().zip(tokens).collect();
        }
        if self.in_flight.is_empty() {
            self.last_tokens = Some(output.sampled.iter().map(|(_, token)| token.token).collect());
        }
        Ok(output)
    }

    fn max_in_flight(&self) -> usize {
        // A vector is read as soon as it is there.
        if self.model.pooling().is_some() { 1 } else { self.backend.max_steps_in_flight() }
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
