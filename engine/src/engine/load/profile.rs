//! The largest step that there can be, run once before there is a KV cache: what it leaves allocated is what steps need.

use std::sync::Arc;

use crate::{
    backend::{Backend, BackendError, RaggedBatch},
    config::EngineConfig,
    kv::BlockId,
    model::{Hidden, Model},
    sampling::{LogitAdjustments, SamplingParams},
    scheduler::{SampleRequest, ScheduledSequence, SequenceId, StepPlan},
};

/// Buffers of a step, and a cache just large enough for it.
pub(super) struct Profile<B: Backend> {
    plan: StepPlan,
    kv: B::KvCache,
    hidden: Hidden<B>,
    logits: B::Buffer,
    block_size: usize,
}

impl<B: Backend> Profile<B> {
    /// A step of `tokens` tokens of as many sequences as there can be. All but one have one token, so that both ways of attention are gone.
    pub(super) fn new(backend: &B, model: &dyn Model<B>, config: &EngineConfig, tokens: usize) -> Result<Self, BackendError> {
        let plan = largest_plan(config, tokens, model.vocab_size());
        let num_blocks = plan.sequences.iter().map(|sequence| sequence.block_table.len()).sum();
        let kv = backend.kv_cache(model.kv_layout(num_blocks, config.block_size))?;
        Ok(Self { plan, kv, hidden: Hidden::new(backend), logits: backend.buffer(), block_size: config.block_size })
    }

    /// Blocks of its cache.
    pub(super) fn num_blocks(&self) -> usize {
        self.plan.sequences.iter().map(|sequence| sequence.block_table.len()).sum()
    }

    /// The layers alone, without logits.
    pub(super) fn run_layers(&mut self, backend: &B, model: &mut dyn Model<B>) -> Result<(), BackendError> {
        let mut batch = RaggedBatch::new(&self.plan, self.block_size);
        batch.logits_rows.clear();
        let batch = backend.batch(batch);
        model.forward(backend, &batch, &mut self.kv, &mut self.hidden, None);
        backend.finish()
    }

    /// The whole step, in which every sequence's next token is chosen by all means.
    pub(super) fn run_step(&mut self, backend: &B, model: &mut dyn Model<B>) -> Result<(), BackendError> {
        let batch = backend.batch(RaggedBatch::new(&self.plan, self.block_size));
        model.forward(backend, &batch, &mut self.kv, &mut self.hidden, Some(&mut self.logits));
        if let Some(pooling) = model.pooling() {
            backend.read_rows(&self.logits, pooling.normalize)?;
        } else {
            let requests: Vec<_> = self.plan.sequences.iter().filter_map(|sequence| sequence.sample.as_ref()).collect();
            backend.read_sampled(backend.sample(&self.logits, &requests)?)?;
        }
        backend.finish()
    }
}

fn largest_plan(config: &EngineConfig, tokens: usize, vocab_size: usize) -> StepPlan {
    let num_seqs = config.max_num_seqs.min(tokens);
    let params = SamplingParams {
        temperature: 1.0,
        top_p: 0.9,
        top_k: 50,
        min_p: 0.01,
        logprobs: Some(config.max_logprobs.min(vocab_size as u32)),
        adjustments: Some(Arc::new(LogitAdjustments { repetition_penalty: 1.1, ..LogitAdjustments::default() })),
        ..SamplingParams::greedy()
    };
    let mut next_block = 0;
    let sequence = |i: usize| {
        let len = if i == 0 { tokens - (num_seqs - 1) } else { 1 };
        let blocks = len.div_ceil(config.block_size) as u32;
        let block_table = (next_block..next_block + blocks).map(BlockId).collect();
        next_block += blocks;
        // Different ones, so that experts share the work.
        let tokens: Vec<u32> = (0..len).map(|t| ((i + t) % vocab_size) as u32).collect();
        ScheduledSequence {
            id: SequenceId(i as u64),
            sample: Some(SampleRequest::after(&params, &tokens, 0)),
            tokens,
            start: 0,
            block_table,
            num_draft_tokens: 0,
            pending: None,
        }
    };
    StepPlan { sequences: (0..num_seqs).map(sequence).collect(), ..StepPlan::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_step_has_all_tokens_and_all_sequences() {
        let config = EngineConfig { max_num_seqs: 5, block_size: 4, ..EngineConfig::demo() };
        for (tokens, sequences) in [(64, 5), (5, 5), (3, 3), (1, 1)] {
            let plan = largest_plan(&config, tokens, 10);
            assert_eq!((plan.num_tokens(), plan.sequences.len()), (tokens, sequences));
            let mut blocks: Vec<_> = plan.sequences.iter().flat_map(|s| s.block_table.iter().map(|b| b.0)).collect();
            assert!(plan.sequences.iter().all(|s| s.block_table.len() == s.tokens.len().div_ceil(4) && s.sample.is_some()));
            blocks.dedup();
            assert!(blocks.iter().enumerate().all(|(i, b)| i == *b as usize), "{blocks:?}");
        }
    }
}
