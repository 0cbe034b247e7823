use super::{SchedulerConfig, pacing, queued::Sequence};

/// Tokens of one step, as they are given away.
///
/// A long prompt yields: while others want tokens, the first long prompt gets at most a threshold and the rest of them nothing; what is
/// left when all others have theirs goes to long prompts in order. So a giant costs short prompts a known share of a step, and a stream
/// of short prompts leaves the giant that share for certain.
///
/// A step with a quantum of prompt tokens takes no further prompt: it would not be computed sooner, and those before it would be done
/// later. So prompts that come together are answered one after the other instead of all at the end.
pub(super) struct Budget {
    pub(super) limit: usize,
    pub(super) left: usize,
    /// Sequences that the step may still take.
    pub(super) places: usize,
    /// Tokens that sequences could have used and pacing did not give them.
    pub(super) withheld: usize,
    block_size: usize,
    /// A prompt with more tokens than this to go is long.
    long_prefill: usize,
    /// A long prompt has had its share.
    long_served: bool,
    /// Prompt tokens that make a step.
    quantum: usize,
    /// Given to prompts, and those of them given to prompts that are not long.
    prompt_tokens: usize,
    short_prompt_tokens: usize,
    /// A prompt was put off because others fill the step.
    put_off: bool,
}

impl Budget {
    pub(super) fn new(limit: usize, config: &SchedulerConfig) -> Self {
        let unless_zero = |bound: usize| if bound == 0 { usize::MAX } else { bound };
        Self {
            limit,
            left: limit,
            places: config.max_num_seqs,
            withheld: 0,
            block_size: config.block_size,
            long_prefill: unless_zero(config.long_prefill_token_threshold),
            long_served: false,
            quantum: unless_zero(config.prefill_quantum),
            prompt_tokens: 0,
            short_prompt_tokens: 0,
            put_off: false,
        }
    }

    /// Whether no further sequence can have a token.
    pub(super) fn is_spent(&self) -> bool {
        self.left == 0 || self.places == 0
    }

    /// Takes back what the step gave a sequence.
    pub(super) fn take_back(&mut self, sequence: &Sequence) {
        self.left += sequence.num_scheduled_tokens;
        self.places += usize::from(sequence.num_scheduled_tokens > 0);
    }

    /// Whether prompts that are not long fill the step, so that the one that asks is put off to the next.
    pub(super) fn puts_off(&mut self) -> bool {
        let is_full = self.short_prompt_tokens >= self.quantum;
        self.put_off |= is_full;
        is_full
    }

    /// Whether nothing is left for long prompts that have had nothing yet.
    pub(super) fn is_full(&self) -> bool {
        self.put_off || self.prompt_tokens >= self.quantum
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
        let is_long = sequence.num_uncomputed_tokens() > threshold;
        self.give(sequence, threshold);
        self.long_served |= is_long;
        if !is_long {
            self.short_prompt_tokens += sequence.num_scheduled_tokens;
        }
    }

    /// Gives a long prompt what the others left.
    pub(super) fn give_rest(&mut self, sequence: &mut Sequence) {
        if sequence.num_scheduled_tokens == 0 {
            return self.give(sequence, usize::MAX);
        }
        let more = if self.put_off { 0 } else { sequence.prefill_allowance.min(self.left) };
        self.prompt_tokens += more;
        sequence.num_scheduled_tokens += more;
        sequence.prefill_allowance -= more;
        self.left -= more;
    }

    fn give(&mut self, sequence: &mut Sequence, most: usize) {
        let wanted = sequence.num_uncomputed_tokens().min(self.left);
        let allowed = pacing::prefill_chunk(wanted, self.left, sequence.pacing.health, self.block_size);
        let chunk = allowed.min(most);
        self.places -= usize::from(chunk > 0);
        sequence.num_scheduled_tokens = chunk;
        sequence.prefill_allowance = allowed - chunk;
        self.left -= chunk;
        self.prompt_tokens += chunk;
        self.withheld += wanted - allowed;
    }
}
