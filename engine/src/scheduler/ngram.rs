//! Guesses at tokens to come: what followed the last few tokens when they came before (n-gram lookup).

use serde::Deserialize;

/// How drafts are made. Names and meanings are those of vLLM's `--speculative-config` with method `ngram`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct NgramConfig {
    /// Most tokens in a draft.
    pub num_speculative_tokens: usize,
    /// Most and fewest latest tokens that are looked up.
    pub prompt_lookup_max: usize,
    pub prompt_lookup_min: usize,
    /// No drafts in steps with more sequences than this: what they cost then is taken from others.
    pub disable_by_batch_size: usize,
}
