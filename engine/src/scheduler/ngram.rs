//! Guesses at tokens to come: what followed the last few tokens when they came before (n-gram lookup).
//!
//! Guesses cost time when they are wrong, never a different output. A step samples at every position of a draft, each time with the
//! random number of that output position, and keeps the samples up to the first that its guess was not. A kept sample was drawn from
//! logits over exactly the tokens kept before it, with the random number that a step of one token would have used: it is that token.
//! So the output is the same token by token, sampled or greedy; nothing has to be accepted by chance.

/// How drafts are made. Names and meanings are those of vLLM's `--speculative-config` with method `ngram`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NgramConfig {
    /// Most tokens in a draft.
    pub num_speculative_tokens: usize,
    /// Most and fewest latest tokens that are looked up.
    pub prompt_lookup_max: usize,
    pub prompt_lookup_min: usize,
    /// No drafts in steps with more sequences than this: what they cost then is taken from others.
    pub disable_by_batch_size: usize,
}

impl NgramConfig {
    /// At most `limit` tokens that may follow `tokens`: what followed the longest suffix that came before, at its latest place.
    /// Where the text repeats itself with a short period, the draft goes on repeating.
    pub fn propose(&self, tokens: &[u32], limit: usize) -> Vec<u32> {
        let limit = limit.min(self.num_speculative_tokens);
        match self.latest_match(tokens) {
            Some(next) if limit > 0 => {
                let period = tokens.len() - next;
                (0..limit).map(|i| tokens[next + i % period]).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Where the text goes on after the best earlier occurrence of its last tokens.
    fn latest_match(&self, tokens: &[u32]) -> Option<usize> {
        let (len, least) = (tokens.len(), self.prompt_lookup_min.max(1));
        if len <= least {
            return None;
        }
        let last = tokens[len - 1];
        let mut best = None;
        let mut best_len = least - 1;
        for end in (0..len - 1).rev().filter(|&end| tokens[end] == last) {
            let earlier = tokens[..=end].iter().rev();
            let matched = earlier.zip(tokens.iter().rev()).take(self.prompt_lookup_max.max(least)).take_while(|(a, b)| a == b).count();
            if matched > best_len {
                (best, best_len) = (Some(end + 1), matched);
                if matched >= self.prompt_lookup_max {
                    break;
                }
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOTHING: [u32; 0] = [];
    const CONFIG: NgramConfig =
        NgramConfig { num_speculative_tokens: 4, prompt_lookup_max: 3, prompt_lookup_min: 2, disable_by_batch_size: 8 };

    #[test]
    fn proposes_what_followed_the_longest_match() {
        assert_eq!(CONFIG.propose(&[1, 2, 3, 9, 8, 7, 5, 2, 3, 6, 1, 2, 3], 4), [9, 8, 7, 5], "three tokens match before two");
        assert_eq!(CONFIG.propose(&[2, 3, 9, 2, 3, 6, 7, 2, 3], 2), [6, 7], "the latest of equals");
        assert_eq!(CONFIG.propose(&[5, 6, 5, 6, 5, 6], 4), [5, 6, 5, 6], "a period goes on");
        assert_eq!(CONFIG.propose(&[3, 3, 3], 4), [3, 3, 3, 3]);
    }

    #[test]
    fn proposes_nothing_without_a_match() {
        assert_eq!(CONFIG.propose(&[1, 2, 3, 4], 4), NOTHING);
        assert_eq!(CONFIG.propose(&[1, 3, 2, 3], 4), NOTHING, "one token is too few");
        assert_eq!(CONFIG.propose(&[1, 2], 4), NOTHING);
        assert_eq!(CONFIG.propose(&[1, 2, 1, 2], 0), NOTHING);
    }

    proptest! {
        #[test]
        fn a_proposal_continues_an_earlier_occurrence(tokens in prop::collection::vec(0..4u32, 0..60), limit in 0..10usize) {
            let draft = CONFIG.propose(&tokens, limit);
            prop_assert!(draft.len() <= limit.min(4));
            if !draft.is_empty() {
                let whole: Vec<u32> = tokens.iter().chain(&draft).copied().collect();
                let (suffix, window) = (&whole[tokens.len() - 2..], whole.len() - tokens.len() + 2);
                prop_assert!(whole[..whole.len() - 1].windows(window).any(|w| w == suffix), "{tokens:?} {draft:?}");
            } else if limit > 0 && tokens.len() > 2 {
                let last = &tokens[tokens.len() - 2..];
                prop_assert!(!tokens[..tokens.len() - 1].windows(2).any(|w| w == last));
            }
        }
    }
}
