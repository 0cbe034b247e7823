//! The card, the stream that everything is issued on, and what went wrong there. Operations that cannot return an error leave the first one
//! here for the next that can; until then nothing more is issued.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use bytemuck::NoUninit;
use parking_lot::Mutex;
use tokenflow_gpu::{Element, Event, Gpu, GpuError, Grid, Stream, kernels::LoadOptions};

use super::{
    buffer::Resized,
    config::{CudaConfig, size_of_element, tag},
    library::Library,
    memory::Memory,
};
use crate::backend::BackendError;

/// Blocks that a grid has at most along y.
const MAX_GRID_Y: usize = 65535;

pub(super) struct Device {
    pub(super) library: Library,
    pub(super) stream: Stream,
    pub(super) gpu: Gpu,
    pub(super) config: CudaConfig,
    failure: Mutex<Option<GpuError>>,
    /// How often memory that operations work with has moved or gone: graphs that were recorded before are of no use.
    pub(super) moves: AtomicU64,
    /// The first of the cache's blocks that nobody owns, where rows that fill up a batch leave their keys and values; 0 before there is a cache.
    pub(super) spare_block: AtomicUsize,
    /// Buffers that a recorded pass has shaped; `None` while nothing is recorded.
    pub(super) recorded: Mutex<Option<Vec<Resized>>>,
    recording: AtomicBool,
    /// Numbers of the last event that was recorded, and of the last that is known to be reached.
    issued: AtomicU64,
    reached: AtomicU64,
}

impl Device {
    pub(super) fn new(gpu: Gpu, config: CudaConfig, options: &LoadOptions<'_>) -> Result<Arc<Self>, BackendError> {
        let stream = gpu.stream()?;
        if !config.batch_invariant {
            // Before anything is recorded, and before the memory is counted that steps need.
            gpu.driver().has_products();
        }
        Ok(Arc::new(Self {
            library: Library::load(&gpu, &config, options)?,
            stream,
            gpu,
            config,
            failure: Mutex::default(),
            moves: AtomicU64::new(0),
            spare_block: AtomicUsize::new(0),
            recorded: Mutex::default(),
            recording: AtomicBool::new(false),
            issued: AtomicU64::new(0),
            reached: AtomicU64::new(0),
        }))
    }

    /// What activations are called in kernels.
    pub(super) fn tag(&self) -> &'static str {
        tag(self.config.compute)
    }

    pub(super) fn warp(&self) -> usize {
        self.gpu.info().warp
    }

    /// Threads for `work` items of a block, in whole warps.
    pub(super) fn threads(&self, work: usize, most: usize) -> u32 {
        work.next_multiple_of(self.warp()).clamp(self.warp(), most) as u32
    }

    /// Blocks of 256 threads for `work` items, over which they stride.
    pub(super) fn stride_blocks(&self, work: usize) -> usize {
        work.div_ceil(256).clamp(1, 8 * self.gpu.info().num_multiprocessors.max(1))
    }

    /// The grid and the threads of a block for `rows` of `cols` elements, as kernels take them that stride over both, 16 bytes at a time.
    pub(super) fn rows_grid(&self, rows: usize, cols: usize, element: Element) -> ([usize; 3], u32) {
        let in_piece = 16 / size_of_element(element);
        let work = if cols.is_multiple_of(in_piece) { cols / in_piece } else { cols };
        let threads = self.threads(work, 256);
        ([work.div_ceil(threads as usize), rows.min(MAX_GRID_Y), 1], threads)
    }

    /// Does `work` unless something has failed, and keeps what fails.
    pub(super) fn issue(&self, work: impl FnOnce() -> Result<(), GpuError>) {
        if self.failure.lock().is_none()
            && let Err(error) = work()
        {
            self.failure.lock().get_or_insert(error);
        }
    }

    /// The first failure since the last call.
    pub(super) fn outcome(&self) -> Result<(), GpuError> {
        self.failure.lock().take().map_or(Ok(()), Err)
    }

    /// Launches the kernel whose name `parts` make, with "_" between them. A grid of no blocks is nothing to do.
    pub(super) fn launch<A: NoUninit>(
        &self,
        parts: &[&'static str],
        blocks: [usize; 3],
        threads: u32,
        shared_bytes: usize,
        args: &A,
    ) -> Result<(), GpuError> {
        if blocks.contains(&0) {
            return Ok(());
        }
        let grid = Grid { blocks: blocks.map(|n| n as u32), threads, shared_bytes: shared_bytes as u32 };
        let function = self.library.function(parts)?;
        // SAFETY: addresses in arguments are of memory that lives until the stream has been waited for (see `Memory`), and as large as shapes say.
        unsafe { self.stream.launch(function, grid, args) }
    }

    /// Memory whose contents are undefined.
    pub(super) fn allocate(self: &Arc<Self>, bytes: usize) -> Result<Memory, GpuError> {
        self.check_not_recording()?;
        Ok(Memory::new(self, self.gpu.allocate(bytes)?))
    }

    /// Memory neither comes nor goes while a graph is recorded.
    pub(super) fn check_not_recording(&self) -> Result<(), GpuError> {
        if self.is_recording() {
            return Err(GpuError::Call { call: "allocation", reason: "a graph is being recorded".into() });
        }
        Ok(())
    }

    pub(super) fn is_recording(&self) -> bool {
        self.recording.load(Ordering::Relaxed)
    }

    pub(super) fn set_recording(&self, recording: bool) {
        self.recording.store(recording, Ordering::Relaxed);
    }

    /// Records an event whose number is above that of all before.
    pub(super) fn record(&self, event: &Event) -> Result<u64, GpuError> {
        self.stream.record(event)?;
        Ok(self.issued.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Waits for an event that was recorded with `number`, unless a later one is known to be reached.
    pub(super) fn wait_for(&self, event: &Event, number: u64) -> Result<(), GpuError> {
        if number > self.reached.load(Ordering::Relaxed) {
            event.wait()?;
            self.reached.fetch_max(number, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Waits for everything.
    pub(super) fn finish(&self) -> Result<(), GpuError> {
        let issued = self.issued.load(Ordering::Relaxed);
        self.stream.wait()?;
        self.reached.fetch_max(issued, Ordering::Relaxed);
        Ok(())
    }
}
