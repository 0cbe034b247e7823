//! The model's vocabulary as the grammar library sees it: bytes of every token, and which are special.

use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

use crate::tokenizer::Tokenizer;

/// Longer tokens do not fit into the trie; no grammar can need them.
const MAX_TOKEN_BYTES: usize = 1000;

/// `vocab_size` is the model's, which may have more rows than the tokenizer has tokens. At least one end-of-sequence token.
pub(super) fn token_env(tokenizer: &Tokenizer, vocab_size: usize, eos_token_ids: &[u32]) -> TokEnv {
    let word = |id: u32| {
        let bytes = if (id as usize) < tokenizer.vocab_size() { tokenizer.grammar_bytes(id) } else { Vec::new() };
        if bytes.len() > MAX_TOKEN_BYTES { Vec::new() } else { bytes }
    };
    let words: Vec<Vec<u8>> = (0..vocab_size as u32).map(word).collect();
    let trie = TokTrie::from(&TokRxInfo::new(vocab_size as u32, eos_token_ids[0]), &words);
    // Tokens are never forced, so that a canonical way to cut text into tokens is not needed.
    std::sync::Arc::new(ApproximateTokEnv::new(trie.with_eos_tokens(eos_token_ids)))
}
