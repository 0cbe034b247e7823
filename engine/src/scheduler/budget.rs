use super::{pacing, running::Sequence};

/// Tokens of one step, as they are given away.
///
/// A long prompt yields: while others want tokens, the first long prompt gets at most a threshold and the rest of them nothing; what is
/// left when all others have theirs goes to long prompts in order. So a giant costs short prompts a known share of a step, and a stream
/// of short prompts leaves the giant that share for certain.
pub(super) struct Budget {
    pub(super) limit: usize,
    pub(super) left: usize,
    /// Tokens that sequences could have used and pacing did not give them.
    pub(super) withheld: usize,
    block_size: usize,
    /// A prompt with more tokens than this to go is long.
    long_prefill: usize,
    /// A long prompt has had its share.
    long_served: bool,
}

impl Budget {
    /// `long_prefill` is [`SchedulerConfig::long_prefill_token_threshold`](super::SchedulerConfig).
    pub(super) fn new(limit: usize, block_size: usize, long_prefill: usize) -> Self {
        let long_prefill = if long_prefill == 0 { usize::MAX } else { long_prefill };
        Self { limit, left: limit, withheld: 0, block_size, long_prefill, long_served: false }
    }

    /// What decodes leave to prompts that want tokens, however many decodes there are.
    pub(super) fn reserve_for_prompts(&self, step: u64) -> usize {
        match self.left {
            // Too few to share: every other step is for prompts.
            0..=1 => self.left * (step % 2) as usize,
            left => left.div_ceil(4),
        }
    }

    /// Whether a prompt gets nothing before all others have theirs; `uncomputed` says how much of it is still to come.
    pub(super) fn comes_last(&self, uncomputed: impl FnOnce() -> usize) -> bool {
        self.long_served && uncomputed() > self.long_prefill
    }

    /// Gives a prompt its next chunk: scaled by its connection's health, and within the threshold if it is long.
    pub(super) fn give_chunk(&mut self, sequence: &mut Sequence) {
        let threshold = self.long_prefill;
        self.long_served |= sequence.num_uncomputed_tokens() > threshold;
        self.give(sequence, threshold);
    }

    /// Gives a long prompt what the others left.
    pub(super) fn give_rest(&mut self, sequence: &mut Sequence) {
        if sequence.num_scheduled_tokens == 0 {
            return self.give(sequence, usize::MAX);
        }
        let more = sequence.prefill_allowance.min(self.left);
        sequence.num_scheduled_tokens += more;
        sequence.prefill_allowance -= more;
        self.left -= more;
    }

    fn give(&mut self, sequence: &mut Sequence, most: usize) {
        let wanted = sequence.num_uncomputed_tokens().min(self.left);
        let allowed = pacing::prefill_chunk(wanted, self.left, sequence.pacing.health, self.block_size);
        let chunk = allowed.min(most);
        sequence.num_scheduled_tokens = chunk;
        sequence.prefill_allowance = allowed - chunk;
        self.left -= chunk;
        self.withheld += wanted - allowed;
    }
}
