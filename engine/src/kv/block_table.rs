use super::{BlockId, BlockPool, CacheScope, prefix_cache::Prefix};

/// The blocks of one sequence in order of position. Empty it with [`BlockTable::release`]: dropping it leaks its blocks.
#[derive(Clone, Debug, Default)]
pub struct BlockTable {
    blocks: Vec<BlockId>,
    /// How many of them, from the first, are full and known to the prefix cache: they are never written again.
    num_known: usize,
}

impl BlockTable {
    pub fn blocks(&self) -> &[BlockId] {
        &self.blocks
    }

    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Takes blocks until the table covers `num_tokens` positions, or none at all and returns false where the pool has too few.
    pub fn grow(&mut self, num_tokens: usize, pool: &mut BlockPool) -> bool {
        let missing = pool.blocks_for(num_tokens).saturating_sub(self.blocks.len());
        if missing > pool.num_free() {
            return false;
        }
        self.blocks.extend((0..missing).map_while(|_| pool.allocate()));
        true
    }

    /// Begins with blocks that [`BlockPool::find_prefix`] found.
    ///
    /// # Panics
    /// When the table holds blocks already.
    pub fn adopt(&mut self, found: Vec<BlockId>, pool: &mut BlockPool) {
        assert!(self.blocks.is_empty(), "a table that holds blocks has its prefix");
        found.iter().for_each(|&block| pool.share(block));
        self.num_known = found.len();
        self.blocks = found;
    }

    /// Lets others find the blocks that `computed`, the tokens whose keys and values are stored, fills. Where another block holds the same
    /// already, that one takes its place here.
    pub fn publish(&mut self, scope: &CacheScope, computed: &[u32], pool: &mut BlockPool) {
        let size = pool.block_size();
        while (self.num_known + 1) * size <= computed.len() {
            let i = self.num_known;
            let before = match i.checked_sub(1) {
                None => Prefix::Empty(scope.clone()),
                Some(last) => match pool.content(self.blocks[last]) {
                    Some(content) => Prefix::After(content),
                    None => return,
                },
            };
            let Some(block) = pool.publish(self.blocks[i], before, &computed[i * size..][..size]) else { return };
            self.blocks[i] = block;
            self.num_known += 1;
        }
    }

    /// Gives back what lies beyond `num_tokens` positions.
    pub fn truncate(&mut self, num_tokens: usize, pool: &mut BlockPool) {
        let keep = pool.blocks_for(num_tokens);
        while self.blocks.len() > keep.max(self.num_known) {
            self.blocks.pop().into_iter().for_each(|block| pool.release(block));
        }
    }

    /// Gives all blocks back, the last first, so that a prefix outlives what follows it on the free list.
    pub fn release(&mut self, pool: &mut BlockPool) {
        for block in self.blocks.drain(..).rev() {
            pool.release(block);
        }
        self.num_known = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_by_whole_blocks_and_all_or_nothing() {
        let mut pool = BlockPool::new(3, 4);
        let mut table = BlockTable::default();
        assert!(table.grow(5, &mut pool));
        assert!(table.grow(8, &mut pool));
        assert_eq!(table.blocks().len(), 2);
        assert!(!table.grow(13, &mut pool));
        assert_eq!((table.blocks().len(), pool.num_free()), (2, 1));
        table.truncate(4, &mut pool);
        assert_eq!((table.blocks().len(), pool.num_free()), (1, 2));
        table.release(&mut pool);
        assert_eq!(pool.check_invariants([&table]), Ok(()));
    }
}
