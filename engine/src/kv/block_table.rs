use super::{BlockId, BlockPool};

/// The blocks of one sequence in order of position. Empty it with [`BlockTable::release`]: dropping it leaks its blocks.
#[derive(Clone, Debug, Default)]
pub struct BlockTable {
    blocks: Vec<BlockId>,
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

    /// Gives all blocks back, the last first, so that a prefix outlives what follows it on the free list.
    pub fn release(&mut self, pool: &mut BlockPool) {
        for block in self.blocks.drain(..).rev() {
            pool.release(block);
        }
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
        table.release(&mut pool);
        assert_eq!(pool.check_invariants([&table]), Ok(()));
    }
}
