//! Where weights lie on the card. Small matrices share slabs, since a card hands out memory in pieces of two megabytes; large ones have memory
//! of their own.

use std::sync::Arc;

use parking_lot::Mutex;
use tokenflow_gpu::{DevicePtr, GpuError};

use super::upload::Uploader;
use crate::backend::cuda::{device::Device, memory::Memory};

/// Kernels read sixteen bytes at a time; whole lines of the cache are read fastest.
const ALIGN: usize = 256;
/// Bytes that what is smaller than an eighth of them shares.
const SLAB_BYTES: usize = 64 << 20;
/// Cards with less memory have no slabs: they are emulated ones, which then see when a kernel reads past a matrix.
const SMALL_CARD: usize = 4 << 30;

/// Bytes on the card for as long as this lives.
pub struct Resident {
    start: DevicePtr,
    _block: Option<Arc<Block>>,
}

impl Resident {
    pub(in crate::backend::cuda) fn start(&self) -> DevicePtr {
        self.start
    }

    /// Of no bytes.
    pub(in crate::backend::cuda) fn none() -> Self {
        Self { start: DevicePtr::NULL, _block: None }
    }
}

struct Block {
    memory: Memory,
    uploader: Arc<Mutex<Uploader>>,
}

impl Drop for Block {
    fn drop(&mut self) {
        // Where loading failed, copies to here may still be under way.
        self.uploader.lock().settle();
    }
}

/// Hands memory out.
pub(super) struct Places {
    device: Arc<Device>,
    uploader: Arc<Mutex<Uploader>>,
    slab_bytes: usize,
    /// The slab that is handed out, and how far.
    slab: Option<(Arc<Block>, usize)>,
}

impl Places {
    pub(super) fn new(device: &Arc<Device>, uploader: &Arc<Mutex<Uploader>>) -> Self {
        let slab_bytes = if device.gpu.info().total_bytes < SMALL_CARD { 0 } else { SLAB_BYTES };
        Self { device: device.clone(), uploader: uploader.clone(), slab_bytes, slab: None }
    }

    pub(super) fn place(&mut self, bytes: usize) -> Result<Resident, GpuError> {
        if bytes >= self.slab_bytes / 8 {
            let block = self.block(bytes)?;
            return Ok(Resident { start: block.memory.start(), _block: Some(block) });
        }
        let (block, used) = match self.slab.take() {
            Some((block, used)) if used + bytes <= self.slab_bytes => (block, used),
            _ => (self.block(self.slab_bytes)?, 0),
        };
        let resident = Resident { start: block.memory.start().add(used), _block: Some(block.clone()) };
        self.slab = Some((block, (used + bytes).next_multiple_of(ALIGN)));
        Ok(resident)
    }

    fn block(&self, bytes: usize) -> Result<Arc<Block>, GpuError> {
        Ok(Arc::new(Block { memory: self.device.allocate(bytes)?, uploader: self.uploader.clone() }))
    }
}

/// One after the other from an aligned start: where each of so many bytes begins, and where the last ends.
pub(super) fn place_planes<const N: usize>(bytes: [usize; N]) -> ([usize; N], usize) {
    let mut end: usize = 0;
    let starts = bytes.map(|bytes| {
        let start = end.next_multiple_of(ALIGN);
        end = start + bytes;
        start
    });
    (starts, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_begin_at_lines() {
        assert_eq!(place_planes([100, 0, 300]), ([0, 256, 256], 556));
        assert_eq!(place_planes([0]), ([0], 0));
    }
}
