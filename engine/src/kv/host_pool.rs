use serde::{Deserialize, Serialize};

/// Index of a block of host memory, which holds what a block of the device holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostBlockId(pub u32);

/// A fixed number of blocks of host memory, each free or held once.
#[derive(Clone, Debug)]
pub struct HostPool {
    num_blocks: usize,
    /// The next to be used stands last: it is the likeliest to be in a cache.
    free: Vec<HostBlockId>,
}

impl HostPool {
    /// # Panics
    /// When `num_blocks` does not fit a [`HostBlockId`].
    pub fn new(num_blocks: usize) -> Self {
        let count = u32::try_from(num_blocks).expect("block numbers are 32 bits wide");
        Self { num_blocks, free: (0..count).rev().map(HostBlockId).collect() }
    }

    pub fn num_blocks(&self) -> usize {
        self.num_blocks
    }

    pub fn num_free(&self) -> usize {
        self.free.len()
    }

    /// So many blocks, or none where there are fewer.
    pub fn allocate(&mut self, count: usize) -> Option<Vec<HostBlockId>> {
        let rest = self.free.len().checked_sub(count)?;
        let mut blocks = self.free.split_off(rest);
        blocks.reverse();
        Some(blocks)
    }

    pub fn release(&mut self, blocks: Vec<HostBlockId>) {
        self.free.extend(blocks.into_iter().rev());
    }

    /// Checks that every block is free once or among `held`, which must be all that are held, once.
    ///
    /// # Errors
    /// Names the first block that is leaked, or free and held at once.
    pub fn check_invariants(&self, held: impl IntoIterator<Item = HostBlockId>) -> Result<(), String> {
        let mut counts = vec![0; self.num_blocks];
        for block in held.into_iter().chain(self.free.iter().copied()) {
            counts[block.0 as usize] += 1;
        }
        match counts.iter().position(|&count| count != 1) {
            Some(block) => Err(format!("host block {block} is free or held {} times", counts[block])),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_out_all_or_nothing_and_each_block_once() {
        let mut pool = HostPool::new(3);
        let two = pool.allocate(2).unwrap();
        assert_eq!((two.as_slice(), pool.allocate(2)), ([HostBlockId(0), HostBlockId(1)].as_slice(), None));
        let one = pool.allocate(1).unwrap();
        assert_eq!(pool.check_invariants(two.iter().chain(&one).copied()), Ok(()));
        assert_eq!(pool.check_invariants(two.clone()).unwrap_err(), "host block 2 is free or held 0 times");
        pool.release(two);
        assert_eq!((pool.num_free(), pool.allocate(2).unwrap()), (2, vec![HostBlockId(0), HostBlockId(1)]));
        assert_eq!(HostPool::new(0).allocate(0), Some(Vec::new()));
    }
}
