//! Keys and values on the card, `[layer][block][key, value][head][offset][dimension]`, and their blocks' ways: to other blocks, to the host and
//! back. All in stream order.

use std::sync::{Arc, atomic::Ordering};

use tokenflow_gpu::{DevicePtr, GpuError};

use super::{
    CudaBackend, args,
    attention::kernel_dim,
    batch::MOST_ADDED,
    config::CudaConfig,
    device::Device,
    memory::{Memory, Pinned},
    upload::Packed,
};
use crate::{
    backend::{BackendError, KvLayout},
    scheduler::{BlockCopy, BlockTransfer},
};

const MAX_HEAD_DIM: usize = 256;

/// Keys and values of all layers, and behind the blocks of the layout as many as rows that fill up a batch write to.
pub struct CudaKvCache {
    pub(super) layout: KvLayout,
    memory: Memory,
    block_bytes: usize,
    num_blocks: usize,
}

/// The same in pinned memory of the host: `[block][layer]`.
pub struct CudaHostKvCache {
    memory: Pinned,
    block_bytes: usize,
    num_layers: usize,
}

/// Of one layer.
fn block_bytes(layout: KvLayout, config: &CudaConfig) -> usize {
    2 * layout.num_kv_heads * layout.block_size * layout.head_dim * config.kv_bytes()
}

/// Whether attention on tensor cores can bring heads of this size to shared memory.
fn check_tiles(device: &Device, head_dim: usize) -> Result<(), BackendError> {
    if device.config.is_exact() {
        return Ok(());
    }
    let kv_bytes = device.config.kv_bytes();
    if !(head_dim * kv_bytes).is_multiple_of(16) {
        return Err(BackendError::Device(format!(
            "heads of {head_dim} dimensions are not supported with --kv-cache-dtype fp8 on a GPU, only multiples of 16"
        )));
    }
    let (needed, most) = (args::Attention::prefill_shared_bytes(kernel_dim(head_dim), kv_bytes), device.gpu.info().max_shared_bytes);
    if needed > most {
        return Err(BackendError::Device(format!(
            "attention with heads of {head_dim} dimensions takes {needed} bytes of shared memory, more than the {most} of {}; --dtype float32 needs none",
            device.gpu.info().name
        )));
    }
    Ok(())
}

impl CudaBackend {
    /// Blocks that a cache has beside those of its layout.
    pub fn spare_blocks(block_size: usize) -> usize {
        MOST_ADDED.div_ceil(block_size)
    }
}

impl CudaKvCache {
    pub(super) fn new(device: &Arc<Device>, layout: KvLayout) -> Result<Self, BackendError> {
        if layout.head_dim > MAX_HEAD_DIM || !layout.head_dim.is_multiple_of(8) {
            return Err(BackendError::Device(format!(
                "heads of {} dimensions are not supported, only multiples of 8 up to {MAX_HEAD_DIM}",
                layout.head_dim
            )));
        }
        check_tiles(device, layout.head_dim)?;
        let block_bytes = block_bytes(layout, &device.config);
        let num_blocks = layout.num_blocks + CudaBackend::spare_blocks(layout.block_size);
        let memory = device.allocate(layout.num_layers * num_blocks * block_bytes)?;
        device.spare_block.store(layout.num_blocks, Ordering::Relaxed);
        // Graphs know the cache before.
        device.moves.fetch_add(1, Ordering::Relaxed);
        Ok(Self { layout, memory, block_bytes, num_blocks })
    }

    pub(super) fn layer(&self, layer: usize) -> DevicePtr {
        self.memory.start().add(layer * self.layer_bytes())
    }

    fn layer_bytes(&self) -> usize {
        self.num_blocks * self.block_bytes
    }

    pub(super) fn shape(&self) -> args::KvShape {
        let KvLayout { num_kv_heads, block_size, head_dim, .. } = self.layout;
        args::KvShape { num_kv_heads: num_kv_heads as u32, block_size: block_size as u32, head_dim: head_dim as u32 }
    }
}

impl CudaHostKvCache {
    pub(super) fn new(device: &Arc<Device>, layout: KvLayout) -> Result<Self, BackendError> {
        let block_bytes = block_bytes(layout, &device.config);
        let memory = device.gpu.allocate_pinned(layout.num_blocks * layout.num_layers * block_bytes)?;
        Ok(Self { memory: Pinned { memory, device: device.clone() }, block_bytes, num_layers: layout.num_layers })
    }

    fn at(&self, block: usize, layer: usize) -> *mut u8 {
        let offset = (block * self.num_layers + layer) * self.block_bytes;
        assert!(offset + self.block_bytes <= self.memory.memory.bytes(), "block {block} of the host");
        self.memory.memory.as_ptr().wrapping_add(offset)
    }
}

impl CudaBackend {
    pub(super) fn block_bytes(&self, layout: KvLayout) -> usize {
        layout.num_layers * block_bytes(layout, &self.device.config)
    }

    pub(super) fn run_copies(&self, kv: &CudaKvCache, copies: &[BlockCopy]) -> Result<(), GpuError> {
        let pairs: Vec<[u32; 2]> = copies.iter().map(|copy| [copy.from.0, copy.to.0]).collect();
        let mut packed = Packed::default();
        packed.add(pairs.as_flattened());
        let list = packed.send(&mut self.copies.lock())?;
        let args = args::CopyBlocks {
            cache: kv.memory.start(),
            copies: list,
            num_copies: pairs.len() as u32,
            block_bytes: kv.block_bytes as u32,
            layer_bytes: kv.layer_bytes() as u64,
        };
        let pieces = kv.block_bytes / 16;
        let threads = self.device.threads(pieces, 256);
        self.device.launch(&["copy_blocks"], [pieces.div_ceil(threads as usize), kv.layout.num_layers, 1], threads, 0, &args)
    }

    /// To the host, or back.
    pub(super) fn run_transfers(
        &self,
        kv: &CudaKvCache,
        host: &CudaHostKvCache,
        blocks: &[BlockTransfer],
        to_host: bool,
    ) -> Result<(), GpuError> {
        assert_eq!((kv.block_bytes, kv.layout.num_layers), (host.block_bytes, host.num_layers), "shapes of blocks");
        for block in blocks {
            for layer in 0..host.num_layers {
                let on_device = kv.layer(layer).add(block.device.0 as usize * kv.block_bytes);
                let on_host = host.at(block.host.0 as usize, layer);
                // SAFETY: both are in bounds, live until the stream has been waited for, and the host touches neither.
                unsafe {
                    if to_host {
                        self.device.stream.copy_to_host(on_host, on_device, kv.block_bytes)?;
                    } else {
                        self.device.stream.copy_to_device(on_device, on_host, kv.block_bytes)?;
                    }
                }
            }
        }
        Ok(())
    }
}
