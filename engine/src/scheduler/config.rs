use std::time::Duration;

use super::{Caps, NgramConfig, Pacing, PacingLaw};

/// The limits that the scheduler keeps. Names and meanings are vLLM's where it has them.
/// Its default is what the command line's defaults come to, with 1,024 blocks and no prefill quantum, which is the device's to say.
#[derive(Clone, Debug, PartialEq)]
pub struct SchedulerConfig {
    /// Tokens of all sequences in one step. At least `max_num_seqs`, or decodes take turns.
    pub max_num_batched_tokens: usize,
    /// Sequences in one step. More may hold KV blocks where some sit most steps out.
    pub max_num_seqs: usize,
    /// Tokens in a KV block.
    pub block_size: usize,
    pub num_blocks: usize,
    /// Steps that may be planned and not yet applied: 1, or [`MAX_STEPS_IN_FLIGHT`] where the next step is planned while one runs.
    pub max_steps_in_flight: usize,
    /// Blocks of host memory for what has to give way; 0 for none, so that it is computed again.
    pub num_host_blocks: usize,
    /// How long it takes to copy one block to the host or back.
    pub block_copy_time: Duration,
    /// A sequence ends when its prompt and output together reach this.
    pub max_model_len: usize,
    pub pacing: Pacing,
    /// How a stream is paced under [`Pacing::PerConnection`].
    pub pacing_law: PacingLaw,
    /// Sequences that may wait, see [`Scheduler::room_to_wait`](super::Scheduler::room_to_wait); `None` sets no bound.
    pub max_waiting: Option<usize>,
    /// No stream gets more tokens per second than this (a reading-speed cap); `None` sets no cap.
    pub stream_rate_cap: Option<f64>,
    /// What one tenant, or one connection, may take.
    pub caps: Caps,
    /// Whether sequences find blocks that others, or they themselves before a preemption, have computed.
    pub enable_prefix_caching: bool,
    pub policy: SchedulingPolicy,
    /// Most tokens that one prompt gets of a step while others wait for theirs; 0 sets no bound.
    pub long_prefill_token_threshold: usize,
    /// A step with this many tokens of prompts takes no further prompt: about as many as keep the device busy; 0 sets no bound.
    pub prefill_quantum: usize,
    /// Guesses at tokens to come; `None` makes none.
    pub speculative: Option<NgramConfig>,
}

/// More than this would keep the device no busier: it would only learn later who has ended.
pub const MAX_STEPS_IN_FLIGHT: usize = 2;

/// Who goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SchedulingPolicy {
    /// First come, first served.
    #[default]
    Fcfs,
    /// By the requests' priority, the lowest number first, then by arrival.
    Priority,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            max_num_batched_tokens: 2048,
            max_num_seqs: 256,
            block_size: 16,
            num_blocks: 1024,
            max_steps_in_flight: 1,
            num_host_blocks: 0,
            block_copy_time: Duration::ZERO,
            max_model_len: 1024 * 16,
            pacing: Pacing::default(),
            pacing_law: PacingLaw::default(),
            max_waiting: None,
            stream_rate_cap: None,
            caps: Caps::default(),
            enable_prefix_caching: true,
            policy: SchedulingPolicy::default(),
            long_prefill_token_threshold: 512,
            prefill_quantum: 0,
            speculative: None,
        }
    }
}

/// Why a sequence was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    #[error("the prompt is empty")]
    EmptyPrompt,
    #[error("the prompt has {prompt} tokens, which leaves no room for output in the model's context of {max_model_len} tokens")]
    ContextLength { prompt: usize, max_model_len: usize },
    #[error("the prompt has {prompt} tokens, but the whole KV cache holds {capacity}")]
    KvCacheTooSmall { prompt: usize, capacity: usize },
}

/// A snapshot for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SchedulerStats {
    /// Sequences that hold KV blocks, paced ones included.
    pub running: usize,
    /// Sequences that hold none: not yet started, or preempted.
    pub waiting: usize,
    /// Sequences that sat the last step out because their link is behind.
    pub paced: usize,
    /// Sequences that the last plan passed over because their tenant, or their connection, has its share.
    pub tenant_capped: usize,
    pub connection_capped: usize,
    /// Streams that have been stalled for long and keep their blocks.
    pub parked: usize,
    /// Sequences whose KV is in host memory, and the blocks that hold it.
    pub offloaded: usize,
    pub host_blocks_used: usize,
    pub host_blocks: usize,
    /// Blocks copied to the host and back, since the start.
    pub offloaded_blocks: u64,
    pub onloaded_blocks: u64,
    pub kv_blocks: usize,
    pub kv_blocks_used: usize,
    /// Since the start.
    pub preemptions: u64,
    pub max_num_batched_tokens: usize,
    /// What pacing left of `max_num_batched_tokens` in the last step: the rest was withheld and nobody else could use it.
    pub step_budget: usize,
    /// Tokens of prompts (or of what a preemption threw away) in the last step.
    pub prefill_tokens: usize,
    /// Tokens of sequences that were generating in the last step: one for each, and its draft.
    pub decode_tokens: usize,
    /// Prompt tokens looked up in the prefix cache, and found there, since the start.
    pub prefix_cache_queries: u64,
    pub prefix_cache_hits: u64,
    /// Drafts, their tokens, and those of them that were right, since the start.
    pub drafts: u64,
    pub draft_tokens: u64,
    pub accepted_draft_tokens: u64,
}

impl SchedulerStats {
    /// Share of KV blocks in use, 0..=1.
    pub fn kv_usage(&self) -> f64 {
        self.kv_blocks_used as f64 / self.kv_blocks.max(1) as f64
    }
}
