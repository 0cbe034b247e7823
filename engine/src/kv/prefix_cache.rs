use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use super::BlockId;

/// Who may find each other's blocks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CacheScope {
    /// All that bring no salt.
    Public,
    /// All that bring the same.
    Salted(Arc<str>),
    /// The sequences of one group, where prefix caching is off.
    Group(u64),
}

/// All that stands before a block.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Prefix {
    /// Nothing: it is the first.
    Empty(CacheScope),
    /// The block of this content, and all before that.
    After(ContentId),
}

/// Names the content of a full block together with all before it. Never used again, so that a name is a whole prefix, exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ContentId(u64);

/// What a block holds.
#[derive(Clone, Debug)]
struct Content {
    id: ContentId,
    hash: u64,
    before: Prefix,
    tokens: Box<[u32]>,
}

/// Which block holds which content: found by a hash of the content before a block and its own tokens, then compared, so that a
/// collision costs a miss, never a wrong answer.
#[derive(Clone, Debug)]
pub(super) struct PrefixCache {
    hasher: RandomState,
    by_hash: HashMap<u64, BlockId>,
    /// By block; `None` where its content is not known, or may still change.
    contents: Vec<Option<Content>>,
    next_id: u64,
}

impl PrefixCache {
    pub(super) fn new(num_blocks: usize) -> Self {
        Self { hasher: RandomState::new(), by_hash: HashMap::new(), contents: vec![None; num_blocks], next_id: 0 }
    }

    pub(super) fn content(&self, block: BlockId) -> Option<ContentId> {
        self.contents[block.0 as usize].as_ref().map(|content| content.id)
    }

    /// The block that holds `tokens` after `before`.
    pub(super) fn find(&self, before: &Prefix, tokens: &[u32]) -> Option<BlockId> {
        let block = *self.by_hash.get(&self.hasher.hash_one((before, tokens)))?;
        let content = self.contents[block.0 as usize].as_ref()?;
        (content.before == *before && *content.tokens == *tokens).then_some(block)
    }

    /// Makes a block known that no other equals. False where its hash is that of another content, so that it stays unknown.
    pub(super) fn insert(&mut self, block: BlockId, before: Prefix, tokens: &[u32]) -> bool {
        let hash = self.hasher.hash_one((&before, tokens));
        if self.by_hash.contains_key(&hash) {
            return false;
        }
        self.by_hash.insert(hash, block);
        let id = ContentId(self.next_id);
        self.next_id += 1;
        self.contents[block.0 as usize] = Some(Content { id, hash, before, tokens: tokens.into() });
        true
    }

    /// Forgets what a block holds, before it is written anew.
    pub(super) fn forget(&mut self, block: BlockId) {
        if let Some(content) = self.contents[block.0 as usize].take() {
            self.by_hash.remove(&content.hash);
        }
    }

    /// Checks that map and blocks agree.
    pub(super) fn check(&self) -> Result<(), String> {
        for (&hash, block) in &self.by_hash {
            if self.contents[block.0 as usize].as_ref().is_none_or(|content| content.hash != hash) {
                return Err(format!("block {} is found by a hash that is not its own", block.0));
            }
        }
        match self.contents.iter().flatten().count() {
            known if known == self.by_hash.len() => Ok(()),
            known => Err(format!("{known} blocks are known, {} can be found", self.by_hash.len())),
        }
    }
}
