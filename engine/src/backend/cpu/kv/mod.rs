//! Where keys and values lie: in the same interleaved form as weights, so that attention is the same product.
//!
//! A block of one layer and KV head holds groups of 16 positions. A group's keys are columns of a product over the
//! head's dimensions, its values rows of a product over positions; pairs of dimensions (keys) or of positions (values)
//! are interleaved for bf16. Heads are padded to a multiple of 16 dimensions with zeros.

mod view;

use super::{
    config::KvType,
    isa::LANES,
    memory::Region,
    product::{BLOCK, Pair, bf16_bits},
};
use crate::backend::{BackendError, KvLayout};

pub(super) use view::HeadView;

/// Positions in a group: one vector of keys.
pub(super) const GROUP: usize = LANES;

/// A head is one block of the product's inner dimension at most.
pub(super) const MAX_HEAD_DIM: usize = BLOCK;

/// Shape of a cache in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct KvShape {
    pub layout: KvLayout,
    pub dtype: KvType,
}

impl KvShape {
    pub(super) fn padded_dim(&self) -> usize {
        self.layout.head_dim.next_multiple_of(LANES)
    }

    fn element_bytes(&self) -> usize {
        match self.dtype {
            KvType::F32 => 4,
            KvType::BF16 => 2,
        }
    }

    fn groups_per_block(&self) -> usize {
        self.layout.block_size.div_ceil(GROUP)
    }

    /// Bytes of the keys, or of the values, of a group.
    pub(super) fn group_bytes(&self) -> usize {
        GROUP * self.padded_dim() * self.element_bytes()
    }

    /// Bytes from one pair of dimensions to the next within a group's keys.
    pub(super) fn key_stride(&self) -> usize {
        2 * self.group_bytes() / self.padded_dim()
    }

    /// Bytes from one pair of positions to the next within a group's values.
    pub(super) fn value_stride(&self) -> usize {
        2 * self.group_bytes() / GROUP
    }

    /// Bytes of one block of one head.
    fn head_bytes(&self) -> usize {
        2 * self.groups_per_block() * self.group_bytes()
    }

    /// Bytes of one block of all heads and layers.
    pub(super) fn block_bytes(&self) -> usize {
        self.layout.num_layers * self.layout.num_kv_heads * self.head_bytes()
    }

    /// Where group `group` of a block begins: keys, then values after [`KvShape::group_bytes`].
    fn group_offset(&self, layer: usize, block: usize, head: usize, group: usize) -> usize {
        let layout = &self.layout;
        let heads = (layer * layout.num_blocks + block) * layout.num_kv_heads + head;
        heads * self.head_bytes() + group * 2 * self.group_bytes()
    }

    /// Byte of dimension `dim` of the key at `lane`, within a group's keys.
    #[inline(always)]
    fn key_offset(&self, lane: usize, dim: usize) -> usize {
        match self.dtype {
            KvType::F32 => (dim * GROUP + lane) * 4,
            KvType::BF16 => (dim / 2 * GROUP + lane) * 4 + dim % 2 * 2,
        }
    }

    /// Byte of dimension `dim` of the value at `lane`, within a group's values.
    #[inline(always)]
    fn value_offset(&self, lane: usize, dim: usize) -> usize {
        match self.dtype {
            KvType::F32 => (lane * self.padded_dim() + dim) * 4,
            KvType::BF16 => (lane / 2 * self.padded_dim() + dim) * 4 + lane % 2 * 2,
        }
    }
}

/// Keys and values of all layers.
pub struct CpuKvCache {
    shape: KvShape,
    memory: Region,
}

impl CpuKvCache {
    pub(super) fn new(shape: KvShape) -> Result<Self, BackendError> {
        let bytes = shape.block_bytes().saturating_mul(shape.layout.num_blocks);
        Ok(Self { shape, memory: Region::zeroed("the KV cache", bytes)? })
    }

    pub(super) fn shape(&self) -> &KvShape {
        &self.shape
    }

    pub fn layout(&self) -> KvLayout {
        self.shape.layout
    }

    /// Stores one token's key and value of one head.
    ///
    /// # Safety
    /// No other thread may use this slot at the same time.
    #[inline(always)]
    pub(super) unsafe fn write(&self, layer: usize, slot: usize, head: usize, key: &[f32], value: &[f32]) {
        let shape = &self.shape;
        let (block, offset) = (slot / shape.layout.block_size, slot % shape.layout.block_size);
        assert!(layer < shape.layout.num_layers && block < shape.layout.num_blocks && head < shape.layout.num_kv_heads);
        let lane = offset % GROUP;
        // SAFETY: the group lies within the memory, and this lane of it is the caller's; elements are aligned to their size.
        unsafe {
            let keys = self.memory.as_shared_mut_ptr().add(shape.group_offset(layer, block, head, offset / GROUP));
            let values = keys.add(shape.group_bytes());
            match shape.dtype {
                KvType::F32 => {
                    let (keys, values) = (keys.cast::<f32>().add(lane), values.cast::<f32>().add(lane * shape.padded_dim()));
                    for (dim, (key, value)) in key.iter().zip(value).enumerate() {
                        keys.add(dim * GROUP).write(*key);
                        values.add(dim).write(*value);
                    }
                }
                KvType::BF16 => {
                    let mut pairs = [0u32; MAX_HEAD_DIM / 2];
                    let pairs = &mut pairs[..key.len().div_ceil(2)];
                    u32::pack(key, pairs);
                    let keys = keys.cast::<u32>().add(lane);
                    for (i, pair) in pairs.iter().enumerate() {
                        keys.add(i * GROUP).write(*pair);
                    }
                    // Two bytes at a time, as the other position of the pair may be another thread's.
                    let values = values.cast::<u16>().add(lane / 2 * 2 * shape.padded_dim() + lane % 2);
                    for (dim, value) in value.iter().enumerate() {
                        values.add(2 * dim).write(bf16_bits(*value));
                    }
                }
            }
        }
    }

    /// Puts in a slot the worst that its former owner may have left there. Padding is never written.
    #[cfg(test)]
    pub(super) fn poison(&mut self, layer: usize, slot: usize) {
        let nan = vec![f32::NAN; self.shape.layout.head_dim];
        for head in 0..self.shape.layout.num_kv_heads {
            // SAFETY: exclusively borrowed.
            unsafe { self.write(layer, slot, head, &nan, &nan) };
        }
    }
}
