use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
};

use llguidance::{ParserFactory, api::TopLevelGrammar};
use parking_lot::Mutex;

use super::{Constraint, GrammarError, Matcher, error::first_line, vocabulary::token_env};
use crate::tokenizer::Tokenizer;

/// Compiled grammars that are kept, because clients repeat themselves.
const CACHED: usize = 32;

/// Compiles constraints for one model. The vocabulary's tree is made when the first one comes.
pub struct GrammarCompiler {
    tokenizer: Arc<Tokenizer>,
    vocab_size: usize,
    /// Those that the model has.
    eos_token_ids: Vec<u32>,
    factory: OnceLock<Result<ParserFactory, GrammarError>>,
    /// The latest first.
    cache: Mutex<VecDeque<Arc<CompiledGrammar>>>,
}

/// A grammar over a model's vocabulary, at its beginning. Shared by all sequences that follow it.
pub struct CompiledGrammar {
    lark: String,
    beginning: Matcher,
}

impl PartialEq for CompiledGrammar {
    /// Of one model's vocabulary.
    fn eq(&self, other: &Self) -> bool {
        self.lark == other.lark
    }
}

impl CompiledGrammar {
    /// Follows the grammar from its beginning, with caches of its own.
    pub fn matcher(&self) -> Matcher {
        self.beginning.fork()
    }
}

impl std::fmt::Debug for CompiledGrammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CompiledGrammar").field(&self.lark).finish()
    }
}

impl GrammarCompiler {
    /// `vocab_size` is the number of rows of the model's logits.
    pub fn new(tokenizer: Arc<Tokenizer>, vocab_size: usize, eos_token_ids: &[u32]) -> Self {
        let eos_token_ids = eos_token_ids.iter().copied().filter(|&id| (id as usize) < vocab_size).collect();
        Self { tokenizer, vocab_size, eos_token_ids, factory: OnceLock::new(), cache: Mutex::default() }
    }

    /// May take long, in the worst case about a second: not for a thread that serves connections.
    ///
    /// # Errors
    /// When the constraint is malformed, contradictory, or needs more than a bounded amount of work.
    pub fn compile(&self, constraint: &Constraint) -> Result<Arc<CompiledGrammar>, GrammarError> {
        let lark = constraint.to_lark()?;
        if let Some(grammar) = self.cached(&lark) {
            return Ok(grammar);
        }
        let factory = self.factory.get_or_init(|| self.factory()).as_ref().map_err(Clone::clone)?;
        let invalid = |e: anyhow::Error| GrammarError::Invalid(first_line(&e));
        let parser = factory.create_parser(TopLevelGrammar::from_lark(lark.clone())).map_err(invalid)?;
        let mut beginning = Matcher::new(parser, self.eos_token_ids.clone()).map_err(|e| GrammarError::Invalid(e.0))?;
        // What cannot begin cannot be followed: better said now than to a running sequence.
        beginning.mask().map_err(|e| GrammarError::Invalid(e.0))?;
        let grammar = Arc::new(CompiledGrammar { lark, beginning });
        let mut cache = self.cache.lock();
        cache.push_front(Arc::clone(&grammar));
        cache.truncate(CACHED);
        Ok(grammar)
    }

    fn cached(&self, lark: &str) -> Option<Arc<CompiledGrammar>> {
        let mut cache = self.cache.lock();
        let i = cache.iter().position(|grammar| grammar.lark == lark)?;
        let grammar = cache.remove(i)?;
        cache.push_front(Arc::clone(&grammar));
        Some(grammar)
    }

    fn factory(&self) -> Result<ParserFactory, GrammarError> {
        if self.eos_token_ids.is_empty() {
            return Err(GrammarError::NoEndOfSequence);
        }
        let env = token_env(&self.tokenizer, self.vocab_size, &self.eos_token_ids);
        let mut factory = ParserFactory::new_simple(&env).map_err(|e| GrammarError::Invalid(first_line(&e)))?;
        factory.quiet();
        let limits = factory.limits_mut();
        limits.verbose_errors = false;
        // About 2 kB each, for every sequence.
        limits.max_lexer_states = 20_000;
        Ok(factory)
    }
}
