//! What attention reads of the cache: one sequence's keys and values of one head, sixteen positions at a time.

use super::{
    super::{
        config::KvType,
        isa::{LANES, Simd},
    },
    CpuKvCache, GROUP, KvShape,
    fp8::expand,
};

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

    /// Bytes that [`HeadView::group`] may need for a copy.
    pub(in super::super) fn copy_bytes(&self) -> usize {
        let expanded = if self.shape().dtype == KvType::Fp8 { self.shape().as_read().group_bytes() } else { 0 };
        2 * (self.shape().group_bytes() + expanded)
    }

    /// Keys and values of the 16 positions from `position` on, as [`KvShape::as_read`]; of these, the ones in `first..end` are to be seen.
    /// What is not to be seen has arbitrary keys but values of zero, as a product with weight zero would not silence a NaN.
    ///
    /// Points into the cache where that holds 16 positions in a row as they are read, all to be seen; else into `copy`, of
    /// [`HeadView::copy_bytes`].
    #[inline(always)]
    pub(in super::super) fn group<S: Simd>(&self, s: S, position: usize, first: usize, end: usize, copy: &mut [u8]) -> [*const u8; 2] {
        let bytes = self.shape().as_read().group_bytes();
        let in_one_block = self.shape().layout.block_size.is_multiple_of(GROUP);
        let [keys, values, copy] = if self.shape().dtype == KvType::Fp8 {
            let (copy, codes) = copy.split_at_mut(2 * bytes);
            let from = if in_one_block { self.stored(position) } else { self.assemble(position, first, end, codes)[0] };
            // SAFETY: keys and then values of a group, which nobody writes during attention, and as many elements of twice the size.
            unsafe { expand(s, from, copy.as_mut_ptr(), 2 * bytes / (4 * LANES)) };
            let keys = copy.as_mut_ptr();
            [keys, keys.wrapping_add(bytes), keys.wrapping_add(bytes)]
        } else if in_one_block {
            let keys = self.stored(position).cast_mut();
            [keys, keys.wrapping_add(bytes), copy.as_mut_ptr()]
        } else {
            return self.assemble(position, first, end, copy);
        };
        if first <= position && position + GROUP <= end {
            return [keys, values];
        }
        // SAFETY: a group's values, which nobody writes during attention, and room for them; in the same place or apart.
        let copy = unsafe {
            std::ptr::copy(values, copy, bytes);
            std::slice::from_raw_parts_mut(copy, bytes)
        };
        let shape = self.shape().as_read();
        let element = shape.element_bytes();
        for lane in (0..GROUP).filter(|lane| !(first..end).contains(&(position + lane))) {
            for dim in 0..shape.padded_dim() {
                copy[shape.value_offset(lane, dim)..][..element].fill(0);
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
