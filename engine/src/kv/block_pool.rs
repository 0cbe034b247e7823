use super::{
    BlockId, BlockTable, CacheScope,
    free_list::FreeList,
    prefix_cache::{ContentId, Prefix, PrefixCache},
};

/// A fixed number of blocks, each either free or held by `ref_count` tables.
///
/// A free block whose content is known can be found again until it is handed out for something else: those without known content go
/// first, then the least recently used.
#[derive(Clone, Debug)]
pub struct BlockPool {
    block_size: usize,
    /// By block: number of tables that hold it; 0 while it is free.
    ref_counts: Vec<u32>,
    free: FreeList,
    cache: PrefixCache,
}

impl BlockPool {
    /// # Panics
    /// When either size is 0, or `num_blocks` does not fit a [`BlockId`].
    pub fn new(num_blocks: usize, block_size: usize) -> Self {
        assert!(num_blocks > 0 && block_size > 0, "a KV cache of {num_blocks} blocks of {block_size} tokens holds nothing");
        let count = u32::try_from(num_blocks).ok().filter(|&count| count < u32::MAX).expect("block numbers are 32 bits wide");
        Self { block_size, ref_counts: vec![0; num_blocks], free: FreeList::full(count), cache: PrefixCache::new(num_blocks) }
    }

    /// Tokens in a block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    pub fn num_blocks(&self) -> usize {
        self.ref_counts.len()
    }

    /// Blocks that nobody holds; those that can be found again are among them.
    pub fn num_free(&self) -> usize {
        self.free.len()
    }

    /// Tokens that the whole pool holds.
    pub fn capacity(&self) -> usize {
        self.num_blocks() * self.block_size
    }

    /// Number of blocks that `num_tokens` tokens of one sequence take.
    pub fn blocks_for(&self, num_tokens: usize) -> usize {
        num_tokens.div_ceil(self.block_size)
    }

    /// A free block, now held once, its content forgotten; `None` when all are held.
    pub fn allocate(&mut self) -> Option<BlockId> {
        let block = self.free.pop_front()?;
        self.cache.forget(block);
        self.ref_counts[block.0 as usize] = 1;
        Some(block)
    }

    /// Lets one more table hold a block. A block held more than once may be read, never written.
    ///
    /// # Panics
    /// When the block is free and its content unknown.
    pub fn share(&mut self, block: BlockId) {
        if self.ref_count(block) == 0 {
            assert!(self.cache.content(block).is_some(), "block {} is shared while it is free", block.0);
            self.free.remove(block);
        }
        self.ref_counts[block.0 as usize] += 1;
    }

    /// Gives a block back; it is free when nobody else holds it.
    ///
    /// # Panics
    /// When the block is free already.
    pub fn release(&mut self, block: BlockId) {
        let count = &mut self.ref_counts[block.0 as usize];
        assert!(*count > 0, "block {} is released twice", block.0);
        *count -= 1;
        if *count == 0 {
            match self.cache.content(block) {
                Some(_) => self.free.push_back(block),
                None => self.free.push_front(block),
            }
        }
    }

    pub fn ref_count(&self, block: BlockId) -> u32 {
        self.ref_counts[block.0 as usize]
    }

    /// The longest known prefix of `tokens` in whole blocks, in order of position. Nobody holds them for the asker yet.
    pub fn find_prefix(&self, scope: &CacheScope, tokens: &[u32]) -> Vec<BlockId> {
        let mut before = Prefix::Empty(scope.clone());
        let mut found = Vec::new();
        for tokens in tokens.chunks_exact(self.block_size) {
            let Some(block) = self.cache.find(&before, tokens) else { break };
            found.push(block);
            let Some(content) = self.cache.content(block) else { break };
            before = Prefix::After(content);
        }
        found
    }

    pub(super) fn content(&self, block: BlockId) -> Option<ContentId> {
        self.cache.content(block)
    }

    /// Makes a full block known that follows `before`, and says which block to hold for its content from now on: `block` itself, or one
    /// that holds the same and was known earlier. The caller's hold has moved there. `None` where it cannot be known.
    pub(super) fn publish(&mut self, block: BlockId, before: Prefix, tokens: &[u32]) -> Option<BlockId> {
        match self.cache.find(&before, tokens) {
            Some(known) => {
                self.share(known);
                self.release(block);
                Some(known)
            }
            None => self.cache.insert(block, before, tokens).then_some(block),
        }
    }

    /// Checks the books against `tables`, which must be all that hold blocks: every block is on the free list once or
    /// held exactly as often as it is counted.
    ///
    /// # Errors
    /// Names the first block that is leaked, free and held at once, or miscounted.
    pub fn check_invariants<'a>(&self, tables: impl IntoIterator<Item = &'a BlockTable>) -> Result<(), String> {
        let mut held = vec![0u32; self.num_blocks()];
        for block in tables.into_iter().flat_map(|table| table.blocks()) {
            held[block.0 as usize] += 1;
        }
        let mut free = vec![0u32; self.num_blocks()];
        for block in self.free.iter() {
            free[block.0 as usize] += 1;
        }
        for block in 0..self.num_blocks() {
            let (held, free, counted) = (held[block], free[block], self.ref_counts[block]);
            if held != counted || free != u32::from(held == 0) {
                return Err(format!("block {block} is held {held} times, counted {counted} times and {free} times on the free list"));
            }
        }
        self.cache.check().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_out_every_block_once_and_the_longest_known_last() {
        let mut pool = BlockPool::new(4, 1);
        let blocks: Vec<_> = std::iter::from_fn(|| pool.allocate()).collect();
        assert_eq!(blocks, [BlockId(0), BlockId(1), BlockId(2), BlockId(3)]);
        let empty = Prefix::Empty(CacheScope::Public);
        assert_eq!(pool.publish(BlockId(2), empty.clone(), &[5]), Some(BlockId(2)));
        assert_eq!(pool.publish(BlockId(1), empty, &[6]), Some(BlockId(1)));
        [2, 0, 1, 3].into_iter().for_each(|block| pool.release(BlockId(block)));
        let order: Vec<_> = std::iter::from_fn(|| pool.allocate()).collect();
        assert_eq!(order, [BlockId(3), BlockId(0), BlockId(2), BlockId(1)], "unknown ones first, then the least recently used");
    }

    #[test]
    fn a_known_block_is_found_until_it_is_used_for_something_else() {
        let mut pool = BlockPool::new(2, 2);
        let mut table = BlockTable::default();
        assert!(table.grow(4, &mut pool));
        table.publish(&CacheScope::Public, &[1, 2, 3, 4], &mut pool);
        let held = table.blocks().to_vec();
        table.release(&mut pool);
        let found = |pool: &BlockPool, tokens: &[u32]| pool.find_prefix(&CacheScope::Public, tokens);
        assert_eq!(found(&pool, &[1, 2, 3, 4, 5]), held);
        assert_eq!(found(&pool, &[1, 2, 3]), held[..1]);
        assert_eq!(found(&pool, &[3, 4]), [], "the same tokens after another prefix are something else");
        assert_eq!(pool.find_prefix(&CacheScope::Salted("x".into()), &[1, 2]), []);
        assert_eq!(pool.allocate(), Some(held[1]), "what follows a prefix goes before it");
        assert_eq!(found(&pool, &[1, 2, 3, 4]), held[..1]);
    }

    #[test]
    fn two_who_computed_the_same_hold_one_block_afterwards() {
        let mut pool = BlockPool::new(4, 2);
        let mut tables = [BlockTable::default(), BlockTable::default()];
        for table in &mut tables {
            assert!(table.grow(4, &mut pool));
            table.publish(&CacheScope::Public, &[1, 2, 3, 4], &mut pool);
        }
        assert_eq!(tables[0].blocks(), tables[1].blocks());
        assert_eq!(pool.num_free(), 2);
        assert_eq!(pool.check_invariants(&tables), Ok(()));
        tables.iter_mut().for_each(|table| table.release(&mut pool));
        assert_eq!(pool.num_free(), 4);
    }

    #[test]
    fn a_shared_block_is_free_after_its_last_holder() {
        let mut pool = BlockPool::new(1, 16);
        let block = pool.allocate().unwrap();
        pool.share(block);
        pool.release(block);
        assert_eq!(pool.num_free(), 0);
        pool.release(block);
        assert_eq!(pool.num_free(), 1);
    }

    #[test]
    #[should_panic(expected = "released twice")]
    fn a_double_free_is_caught() {
        let mut pool = BlockPool::new(1, 16);
        let block = pool.allocate().unwrap();
        pool.release(block);
        pool.release(block);
    }

    #[test]
    fn the_check_names_a_leaked_block() {
        let mut pool = BlockPool::new(2, 16);
        pool.allocate();
        assert_eq!(pool.check_invariants([]).unwrap_err(), "block 0 is held 0 times, counted 1 times and 0 times on the free list");
    }
}
