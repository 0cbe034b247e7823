use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::SequenceId;
use crate::{
    kv::{BlockId, HostBlockId},
    sampling::{SampledToken, SamplingParams, ScoredToken, TokenMask},
};

/// One forward pass over a ragged batch: plain data, so that a recorded list of plans replays a bug.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepPlan {
    /// Counts up from 0.
    pub step: u64,
    /// Blocks to copy to host memory, before anything else of the step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub offload: Vec<BlockTransfer>,
    /// Blocks to copy before the pass, one after the other: what a later one reads, an earlier one may have written.
    pub copies: Vec<BlockCopy>,
    /// Blocks to copy back from host memory, after `copies` and before the pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub onload: Vec<BlockTransfer>,
    pub sequences: Vec<ScheduledSequence>,
    /// Prompt tokens whose log-probabilities are wanted.
    pub scores: Vec<PromptScores>,
}

/// For one sequence, how likely what stands before them makes tokens of its prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptScores {
    /// Its place in the plan's sequences.
    pub sequence: usize,
    /// What follows each of its first tokens of the step.
    pub targets: Vec<u32>,
    /// Number of likeliest tokens to report beside each.
    pub top: u32,
}

/// Keys and values of all layers go from one block to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockCopy {
    pub from: BlockId,
    pub to: BlockId,
}

/// Keys and values of all layers go from a block of the device to one of the host, or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockTransfer {
    pub device: BlockId,
    pub host: HostBlockId,
}

/// One sequence's share of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduledSequence {
    pub id: SequenceId,
    /// Tokens to compute; the first stands at position `start`, which is also the number of tokens whose KV is already stored.
    pub tokens: Vec<u32>,
    pub start: usize,
    /// Blocks in order of position; covers at least `start + tokens.len()` positions. Position `p` is stored in slot
    /// `block_table[p / block_size] * block_size + p % block_size`.
    pub block_table: Vec<BlockId>,
    /// Set when all known tokens are computed with this step, so that the next is to be sampled: a decode, or the last chunk of a prompt.
    pub sample: Option<SampleRequest>,
    /// How many of `tokens`, at the end, are guesses at tokens to come. With `sample` only: then not one row is sampled but the last
    /// `num_draft_tokens + 1`, each at its own output position, and a guess holds as long as it is what the row before it sampled.
    pub num_draft_tokens: usize,
    /// Set where the last of `tokens` is not known yet and only holds its place: it is what the step before this one samples in that row,
    /// counted over all rows that it samples. There are no drafts then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<usize>,
}

/// What the sampler needs to know of one sequence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleRequest {
    pub params: SamplingParams,
    /// Index of the token to be sampled among the sequence's output tokens (with drafts: of the first); random numbers are a function of
    /// (seed, position).
    pub output_position: usize,
    /// Every token of the sequence so far, the last `output_position` of them output; present where the parameters look back.
    pub history: Option<Vec<u32>>,
    /// Present where a grammar rules. The scheduler leaves it empty; the engine, which knows the grammar, fills it in.
    pub mask: Option<Arc<TokenMask>>,
}

impl SampleRequest {
    /// For the token that follows `tokens`, the last `output_position` of which are output.
    pub fn after(params: &SamplingParams, tokens: &[u32], output_position: usize) -> Self {
        let history = params.reads_history().then(|| tokens.to_vec());
        Self { params: params.clone(), output_position, history, mask: None }
    }
}

/// Tokens that a step sampled, in the order of the plan's sequences that asked for one; `num_draft_tokens + 1` for each of these.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepOutput {
    pub step: u64,
    pub sampled: Vec<(SequenceId, SampledToken)>,
    /// By models that embed: the vector of every sequence in `sampled`, whose tokens then only say that its prompt is complete.
    pub pooled: Vec<(SequenceId, Vec<f32>)>,
    /// For each of the plan's `scores`, its targets.
    pub scored: Vec<Vec<ScoredToken>>,
}

impl StepPlan {
    /// Number of tokens of all sequences in the pass.
    pub fn num_tokens(&self) -> usize {
        self.sequences.iter().map(|s| s.tokens.len()).sum()
    }
}
