//! Where keys and values lie: in the same interleaved form as weights, so that attention is the same product.
//!
//! A block of one layer and KV head holds groups of 16 positions. A group's keys are columns of a product over the
//! head's dimensions, its values rows of a product over positions; pairs of dimensions (keys) or of positions (values)
//! are interleaved except for f32. Heads are padded to a multiple of 16 dimensions with zeros. FP8 lies like bf16, which it is expanded to
//! when it is read.

mod fp8;
mod view;

use half::f16;

use super::{
    config::KvType,
    isa::LANES,
    memory::Region,
    pool::Pool,
    product::{BLOCK, bf16_bits},
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
            KvType::BF16 | KvType::F16 => 2,
            KvType::Fp8 => 1,
        }
    }

    /// The shape in which products see the cache.
    pub(super) fn as_read(&self) -> Self {
        Self { dtype: if self.dtype == KvType::Fp8 { KvType::BF16 } else { self.dtype }, ..*self }
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
            _ => ((dim / 2 * GROUP + lane) * 2 + dim % 2) * self.element_bytes(),
        }
    }

    /// Byte of dimension `dim` of the value at `lane`, within a group's values.
    #[inline(always)]
    fn value_offset(&self, lane: usize, dim: usize) -> usize {
        match self.dtype {
            KvType::F32 => (lane * self.padded_dim() + dim) * 4,
            _ => ((lane / 2 * self.padded_dim() + dim) * 2 + lane % 2) * self.element_bytes(),
        }
    }
}

/// Keys and values of all layers.
pub struct CpuKvCache {
    shape: KvShape,
    memory: Region,
}

impl CpuKvCache {
    /// The first blocks, up to `populated` bytes, have their memory from the start, so that first writes do not wait for the kernel to
    /// zero it.
    pub(super) fn new(shape: KvShape, populated: usize, pool: &Pool) -> Result<Self, BackendError> {
        let bytes = shape.block_bytes().saturating_mul(shape.layout.num_blocks);
        let memory = Region::zeroed("the KV cache", bytes)?;
        let blocks = shape.layout.num_blocks.min(populated / shape.block_bytes().max(1));
        pool.split(shape.layout.num_layers, blocks > 0, |_, layers| {
            for layer in layers {
                memory.populate(shape.group_offset(layer, 0, 0, 0)..shape.group_offset(layer, blocks, 0, 0));
            }
        });
        Ok(Self { shape, memory })
    }

    pub(super) fn shape(&self) -> &KvShape {
        &self.shape
    }

    pub fn layout(&self) -> KvLayout {
        self.shape.layout
    }

    /// Makes block `to` hold in all layers what `from` holds.
    pub(super) fn copy_block(&mut self, from: usize, to: usize) {
        let (shape, layout) = (&self.shape, self.shape.layout);
        assert!(from < layout.num_blocks && to < layout.num_blocks, "a copy stays within the cache");
        let bytes = shape.block_bytes() / layout.num_layers.max(1);
        for layer in 0..layout.num_layers {
            let (from, to) = (shape.group_offset(layer, from, 0, 0), shape.group_offset(layer, to, 0, 0));
            let start = self.memory.as_shared_mut_ptr();
            // SAFETY: both blocks lie within the memory, which is exclusively borrowed; a block copied to itself may overlap.
            unsafe { std::ptr::copy(start.add(from), start.add(to), bytes) };
        }
    }

    /// Copies blocks of another cache, each a pair of where it lies there and where it goes here, in all layers.
    pub(super) fn copy_from(&mut self, other: &Self, blocks: impl Iterator<Item = (usize, usize)>, pool: &Pool) {
        let blocks: Vec<(usize, usize)> = blocks.collect();
        let (here, there) = (&self.shape, &other.shape);
        let same = |a: &KvShape| (a.layout.num_layers, a.layout.num_kv_heads, a.layout.head_dim, a.layout.block_size, a.element_bytes());
        assert_eq!(same(here), same(there), "caches of one shape");
        for &(from, to) in &blocks {
            assert!(from < there.layout.num_blocks && to < here.layout.num_blocks, "a copy stays within the caches");
        }
        let layers = here.layout.num_layers;
        let bytes = here.block_bytes() / layers.max(1);
        pool.split(layers, blocks.len() > 1, |_, layers| {
            for layer in layers {
                for &(from, to) in &blocks {
                    let (from, to) = (there.group_offset(layer, from, 0, 0), here.group_offset(layer, to, 0, 0));
                    // SAFETY: both blocks lie within their memory; this one's is exclusively borrowed, and its layer is this thread's alone.
                    unsafe {
                        let to = self.memory.as_shared_mut_ptr().add(to);
                        std::ptr::copy_nonoverlapping(other.memory.as_ptr().add(from), to, bytes);
                    }
                }
            }
        });
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
                KvType::BF16 => self.scatter(lane, key, value, keys.cast(), values.cast(), bf16_bits),
                KvType::F16 => {
                    let bits = |x: f32| f16::from_f32(x.clamp(f16::MIN.to_f32(), f16::MAX.to_f32())).to_bits();
                    self.scatter(lane, key, value, keys.cast(), values.cast(), bits);
                }
                KvType::Fp8 => self.scatter(lane, key, value, keys, values, fp8::e4m3_bits),
            }
        }
    }

    /// Writes a key and a value of interleaved elements `T`, one by one, as the other one of a pair may be another thread's.
    ///
    /// # Safety
    /// `keys` and `values` must be a group's, and lane `lane` of it the caller's.
    #[inline(always)]
    unsafe fn scatter<T>(&self, lane: usize, key: &[f32], value: &[f32], keys: *mut T, values: *mut T, bits: impl Fn(f32) -> T) {
        // SAFETY: promised by the caller.
        unsafe {
            let keys = keys.add(2 * lane);
            for (dim, key) in key.iter().enumerate() {
                keys.add(dim / 2 * 2 * GROUP + dim % 2).write(bits(*key));
            }
            let values = values.add(lane / 2 * 2 * self.shape.padded_dim() + lane % 2);
            for (dim, value) in value.iter().enumerate() {
                values.add(2 * dim).write(bits(*value));
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
