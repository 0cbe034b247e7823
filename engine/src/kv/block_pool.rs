use std::collections::VecDeque;

use super::{BlockId, BlockTable};

/// A fixed number of blocks, each either free or held by `ref_count` tables.
///
/// The free list is first in, first out: a freed block is the last to be handed out again, so what it holds stays readable longest.
#[derive(Clone, Debug)]
pub struct BlockPool {
    block_size: usize,
    /// By block: number of tables that hold it; 0 while it is free.
    ref_counts: Vec<u32>,
    free: VecDeque<BlockId>,
}

impl BlockPool {
    /// # Panics
    /// When either size is 0, or `num_blocks` does not fit a [`BlockId`].
    pub fn new(num_blocks: usize, block_size: usize) -> Self {
        assert!(num_blocks > 0 && block_size > 0, "a KV cache of {num_blocks} blocks of {block_size} tokens holds nothing");
        let last = u32::try_from(num_blocks).expect("block numbers are 32 bits wide");
        Self { block_size, ref_counts: vec![0; num_blocks], free: (0..last).map(BlockId).collect() }
    }

    /// Tokens in a block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    pub fn num_blocks(&self) -> usize {
        self.ref_counts.len()
    }

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

    /// A free block, now held once; `None` when all are held.
    pub fn allocate(&mut self) -> Option<BlockId> {
        let block = self.free.pop_front()?;
        self.ref_counts[block.0 as usize] = 1;
        Some(block)
    }

    /// Lets one more table hold a block. A block held more than once may be read, never written.
    ///
    /// # Panics
    /// When the block is free.
    pub fn share(&mut self, block: BlockId) {
        let count = &mut self.ref_counts[block.0 as usize];
        assert!(*count > 0, "block {} is shared while it is free", block.0);
        *count += 1;
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
            self.free.push_back(block);
        }
    }

    pub fn ref_count(&self, block: BlockId) -> u32 {
        self.ref_counts[block.0 as usize]
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
        for block in &self.free {
            free[block.0 as usize] += 1;
        }
        for block in 0..self.num_blocks() {
            let (held, free, counted) = (held[block], free[block], self.ref_counts[block]);
            if held != counted || free != u32::from(held == 0) {
                return Err(format!("block {block} is held {held} times, counted {counted} times and {free} times on the free list"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_out_every_block_once_and_the_longest_free_first() {
        let mut pool = BlockPool::new(3, 16);
        let blocks: Vec<_> = std::iter::from_fn(|| pool.allocate()).collect();
        assert_eq!(blocks, [BlockId(0), BlockId(1), BlockId(2)]);
        pool.release(BlockId(1));
        pool.release(BlockId(0));
        assert_eq!(pool.allocate(), Some(BlockId(1)));
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
