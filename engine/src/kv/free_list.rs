use super::BlockId;

/// Free blocks in the order in which they will be used again. Every operation takes constant time.
///
/// A ring of links through all block numbers and one more, which stands for the ends; a block that is not free links to itself.
#[derive(Clone, Debug)]
pub(super) struct FreeList {
    next: Vec<u32>,
    prev: Vec<u32>,
    len: usize,
}

impl FreeList {
    /// All blocks, the lowest first.
    pub(super) fn full(num_blocks: u32) -> Self {
        let ends = num_blocks;
        let mut list = Self { next: (0..=ends).collect(), prev: (0..=ends).collect(), len: 0 };
        (0..num_blocks).for_each(|block| list.push_back(BlockId(block)));
        list
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn ends(&self) -> u32 {
        self.next.len() as u32 - 1
    }

    /// The next to be used.
    pub(super) fn pop_front(&mut self) -> Option<BlockId> {
        let first = self.next[self.ends() as usize];
        (first != self.ends()).then(|| {
            self.remove(BlockId(first));
            BlockId(first)
        })
    }

    pub(super) fn push_front(&mut self, block: BlockId) {
        self.insert(block, self.ends());
    }

    pub(super) fn push_back(&mut self, block: BlockId) {
        self.insert(block, self.prev[self.ends() as usize]);
    }

    fn insert(&mut self, BlockId(block): BlockId, before: u32) {
        debug_assert_eq!(self.next[block as usize], block, "block {block} is on the list already");
        let after = self.next[before as usize];
        (self.next[before as usize], self.prev[block as usize]) = (block, before);
        (self.next[block as usize], self.prev[after as usize]) = (after, block);
        self.len += 1;
    }

    /// Takes a block out of the middle; it must be on the list.
    pub(super) fn remove(&mut self, BlockId(block): BlockId) {
        let (before, after) = (self.prev[block as usize], self.next[block as usize]);
        debug_assert_ne!(after, block, "block {block} is not on the list");
        (self.next[before as usize], self.prev[after as usize]) = (after, before);
        (self.next[block as usize], self.prev[block as usize]) = (block, block);
        self.len -= 1;
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = BlockId> {
        let ends = self.ends();
        std::iter::successors(Some(self.next[ends as usize]), |&block| Some(self.next[block as usize]))
            .take_while(move |&block| block != ends)
            .map(BlockId)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_queue_with_removal(operations in prop::collection::vec((0..4u8, 0..8u32), 0..200)) {
            let mut list = FreeList::full(8);
            let mut model: VecDeque<u32> = (0..8).collect();
            for (operation, block) in operations {
                let at = model.iter().position(|&b| b == block);
                match (operation, at) {
                    (0, _) => prop_assert_eq!(list.pop_front().map(|b| b.0), model.pop_front()),
                    (1, None) => { list.push_front(BlockId(block)); model.push_front(block) }
                    (2, None) => { list.push_back(BlockId(block)); model.push_back(block) }
                    (3, Some(at)) => { list.remove(BlockId(block)); model.remove(at); }
                    _ => {}
                }
                prop_assert_eq!(list.len(), model.len());
                prop_assert_eq!(list.iter().map(|b| b.0).collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            }
        }
    }
}
