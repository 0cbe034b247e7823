//! What attention reads of the cache: one sequence's keys and values of one head, sixteen positions at a time.

use super::{CpuKvCache, GROUP, KvShape};

/// The positions of one sequence in one layer and KV head.
pub(in super::super) struct HeadView<'a> {
    cache: &'a CpuKvCache,
    layer: usize,
    head: usize,
    /// The sequence's block table.
    table: &'a [u32],
}

impl<'a> HeadView<'a> {
    pub(in super::super) fn new(cache: &'a CpuKvCache, layer: usize, head: usize, table: &'a [u32]) -> Self {
        Self { cache, layer, head, table }
    }

    fn shape(&self) -> &KvShape {
        &self.cache.shape
    }

    /// Where the keys of the 16 positions from `position` on are likely to be read from.
    #[inline(always)]
    pub(in super::super) fn keys_hint(&self, position: usize) -> *const u8 {
        let block_size = self.shape().layout.block_size;
        let (block, group) = (self.table[position / block_size] as usize, position % block_size / GROUP);
        self.cache.memory.as_ptr().wrapping_add(self.shape().group_offset(self.layer, block, self.head, group))
    }

    /// Keys, then values, of the group that holds `position`.
    #[inline(always)]
    fn stored(&self, position: usize) -> *const u8 {
        let keys = self.keys_hint(position);
        let offset = keys as usize - self.cache.memory.as_ptr() as usize;
        assert!(offset + 2 * self.shape().group_bytes() <= self.cache.memory.len(), "position {position} lies in a block of the cache");
        keys
    }

    /// Keys and values of the 16 positions from `position` on, of which those in `first..end` are to be seen. What is not to be seen
    /// has arbitrary keys but values of zero, as a product with weight zero would not silence a NaN.
    ///
    /// Points into the cache where that holds 16 positions in a row, all to be seen; else into `copy`, of [`KvShape::group_bytes`] twice.
    #[inline(always)]
    pub(in super::super) fn group(&self, position: usize, first: usize, end: usize, copy: &mut [u8]) -> [*const u8; 2] {
        let bytes = self.shape().group_bytes();
        if !self.shape().layout.block_size.is_multiple_of(GROUP) {
            return self.assemble(position, first, end, copy);
        }
        let keys = self.stored(position);
        let values = keys.wrapping_add(bytes);
        if first <= position && position + GROUP <= end {
            return [keys, values];
        }
        let copy = &mut copy[..bytes];
        // SAFETY: a group's values, which nobody writes during attention.
        copy.copy_from_slice(unsafe { std::slice::from_raw_parts(values, bytes) });
        let element = self.shape().element_bytes();
        for lane in (0..GROUP).filter(|lane| !(first..end).contains(&(position + lane))) {
            for dim in 0..self.shape().padded_dim() {
                copy[self.shape().value_offset(lane, dim)..][..element].fill(0);
            }
        }
        [keys, copy.as_ptr()]
    }

    /// A group put together from blocks that are no multiple of it.
    fn assemble(&self, position: usize, first: usize, end: usize, copy: &mut [u8]) -> [*const u8; 2] {
        let (bytes, element) = (self.shape().group_bytes(), self.shape().element_bytes());
        let (keys, values) = copy[..2 * bytes].split_at_mut(bytes);
        values.fill(0);
        for position in position.max(first)..(position + GROUP).min(end) {
            let (from, to) = (position % self.shape().layout.block_size % GROUP, position % GROUP);
            // SAFETY: a group's keys and values, which nobody writes during attention.
            let stored = unsafe { std::slice::from_raw_parts(self.stored(position), 2 * bytes) };
            for dim in 0..self.shape().padded_dim() {
                let offset = |lane| self.shape().key_offset(lane, dim);
                keys[offset(to)..][..element].copy_from_slice(&stored[offset(from)..][..element]);
                let offset = |lane| self.shape().value_offset(lane, dim);
                values[offset(to)..][..element].copy_from_slice(&stored[bytes + offset(from)..][..element]);
            }
        }
        [keys.as_ptr(), values.as_ptr()]
    }
}
