//! A card to put checks to: memory that lives as long as one check, launches by a kernel's name, and the greatest error that was seen.
//! Every call waits, and an error belongs to the call that made it.

use std::cell::{Cell, RefCell};

use anyhow::{Context, bail, ensure};
use bytemuck::{NoUninit, Pod};
use tokenflow_gpu::{DeviceMemory, DevicePtr, Gpu, Grid, Kernels, PinnedMemory, Stream};

/// Bytes before and behind each buffer that no kernel may change: what finds writes out of bounds on a card that does not look for them.
const GUARD_BYTES: usize = 256;
const GUARD: u8 = 0xa5;

/// How far a result was off, and how far it might have been.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Deviation {
    pub error: f32,
    pub tolerance: f32,
}

/// A card and its compiled kernels.
pub struct Card {
    gpu: Gpu,
    kernels: Kernels,
    guard_bytes: usize,
    staging: RefCell<Option<PinnedMemory>>,
    /// The deviation that came nearest to its tolerance, or passed it.
    worst: Cell<Option<Deviation>>,
}

impl Card {
    pub fn new(gpu: Gpu, kernels: Kernels) -> Self {
        // An emulated card looks at every access itself, and at more of them where buffers have no margin.
        let guard_bytes = if gpu.info().name.starts_with("Emulated") { 0 } else { GUARD_BYTES };
        Self { gpu, kernels, guard_bytes, staging: RefCell::default(), worst: Cell::default() }
    }

    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Lanes of a warp.
    pub fn warp(&self) -> u32 {
        self.gpu.info().warp as u32
    }

    /// The worst deviation since the last call; none where only equality was looked for.
    pub fn take_worst(&self) -> Option<Deviation> {
        self.worst.take()
    }

    /// Whether every element is within `tolerance` of what was expected, relative to 1 or to its size.
    ///
    /// # Errors
    /// Names the first element that is not.
    pub fn compare(&self, what: &str, found: &[f32], expected: &[f32], tolerance: f32) -> anyhow::Result<()> {
        ensure!(found.len() == expected.len(), "{what}: {} elements, not {}", found.len(), expected.len());
        let error = |(f, e): (&f32, &f32)| (f - e).abs() / e.abs().max(1.0);
        // NaN is near nothing.
        let far = found.iter().zip(expected).position(|pair| error(pair).is_nan() || error(pair) > tolerance);
        let largest = found.iter().zip(expected).map(error).fold(0.0, |a: f32, b| if a >= b { a } else { b });
        self.note(Deviation { error: largest, tolerance });
        match far {
            Some(i) => bail!("{what}: element {i} of {} is {}, not {}", found.len(), found[i], expected[i]),
            None => Ok(()),
        }
    }

    /// As [`Card::compare`], relative to the largest of what was expected: for sums whose terms were rounded.
    ///
    /// # Errors
    /// Names the first element that is too far off.
    pub fn compare_scaled(&self, what: &str, found: &[f32], expected: &[f32], tolerance: f32) -> anyhow::Result<()> {
        let largest = expected.iter().fold(1f32, |largest, v| largest.max(v.abs()));
        let scaled = |values: &[f32]| values.iter().map(|v| v / largest).collect::<Vec<_>>();
        self.compare(what, &scaled(found), &scaled(expected), tolerance)
    }

    fn note(&self, new: Deviation) {
        // Where nothing may differ, anything that does is infinitely far.
        let share = |d: Deviation| if d.error == 0.0 { 0.0 } else { d.error / d.tolerance };
        let is_worse = |old| share(new).is_nan() || share(new) > share(old) || (share(new) == share(old) && new.tolerance > old.tolerance);
        let worse = self.worst.get().is_none_or(is_worse);
        if worse {
            self.worst.set(Some(new));
        }
    }

    /// Calls `work` with pinned memory of at least `bytes`, which no copy works with.
    fn staged<R>(&self, bytes: usize, work: impl FnOnce(&mut PinnedMemory) -> anyhow::Result<R>) -> anyhow::Result<R> {
        let mut staging = self.staging.borrow_mut();
        if staging.as_ref().is_none_or(|memory| memory.bytes() < bytes) {
            *staging = None;
            *staging = Some(self.gpu.allocate_pinned(bytes.next_power_of_two().max(1 << 16))?);
        }
        work(staging.as_mut().context("allocated above")?)
    }
}

/// What one check has on a card. Its memory is freed with it.
pub struct Device<'a> {
    pub card: &'a Card,
    stream: Stream,
    memory: RefCell<Vec<DeviceMemory>>,
}

impl<'a> Device<'a> {
    /// # Errors
    /// When the driver fails.
    pub fn new(card: &'a Card) -> anyhow::Result<Self> {
        Ok(Self { card, stream: card.gpu.stream()?, memory: RefCell::default() })
    }

    pub fn warp(&self) -> u32 {
        self.card.warp()
    }

    /// Memory for `len` elements whose bytes are all 0xff: NaN as a number, far out of bounds as an index.
    ///
    /// # Errors
    /// When memory is short.
    pub fn allocate<T: Copy>(&self, len: usize) -> anyhow::Result<DevicePtr> {
        let (bytes, guard) = (len * size_of::<T>(), self.card.guard_bytes);
        if bytes == 0 {
            return Ok(DevicePtr::NULL);
        }
        let memory = self.card.gpu.allocate(bytes + 2 * guard)?;
        let start = memory.start();
        self.memory.borrow_mut().push(memory);
        // SAFETY: within what was just allocated; the wait comes before anything else.
        unsafe {
            if guard > 0 {
                self.stream.fill(start, GUARD, bytes + 2 * guard)?;
            }
            self.stream.fill(start.add(guard), 0xff, bytes)?;
        }
        self.stream.wait()?;
        Ok(start.add(guard))
    }

    /// # Errors
    /// When memory is short or the driver fails.
    pub fn upload<T: NoUninit>(&self, values: &[T]) -> anyhow::Result<DevicePtr> {
        let pointer = self.allocate::<T>(values.len())?;
        let bytes: &[u8] = bytemuck::cast_slice(values);
        if bytes.is_empty() {
            return Ok(pointer);
        }
        self.card.staged(bytes.len(), |staging| {
            // SAFETY: nothing is under way, and nothing is when this returns.
            unsafe {
                staging.write(0..bytes.len()).copy_from_slice(bytes);
                self.stream.copy_to_device(pointer, staging.as_ptr(), bytes.len())?;
            }
            Ok(self.stream.wait()?)
        })?;
        Ok(pointer)
    }

    /// Null where there is nothing.
    ///
    /// # Errors
    /// As [`Device::upload`].
    pub fn upload_some<T: NoUninit>(&self, values: Option<&[T]>) -> anyhow::Result<DevicePtr> {
        values.map_or(Ok(DevicePtr::NULL), |values| self.upload(values))
    }

    /// # Errors
    /// When the driver fails.
    pub fn download<T: Pod>(&self, pointer: DevicePtr, len: usize) -> anyhow::Result<Vec<T>> {
        let mut values = vec![T::zeroed(); len];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut values);
        self.read(pointer, bytes)?;
        Ok(values)
    }

    fn read(&self, pointer: DevicePtr, bytes: &mut [u8]) -> anyhow::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.card.staged(bytes.len(), |staging| {
            // SAFETY: nothing is under way; the wait comes before what was copied is read.
            unsafe { self.stream.copy_to_host(staging.as_ptr(), pointer, bytes.len())? };
            self.stream.wait()?;
            // SAFETY: as above.
            bytes.copy_from_slice(unsafe { staging.read(0..bytes.len()) });
            Ok(())
        })
    }

    /// Launches the kernel and waits for it.
    ///
    /// # Errors
    /// When there is no such kernel, the driver fails, or the kernel wrote where it may not.
    pub fn launch<A: NoUninit>(&self, kernel: &str, blocks: [u32; 3], threads: u32, shared_bytes: usize, args: &A) -> anyhow::Result<()> {
        let function = self.card.kernels.get(kernel)?;
        let grid = Grid { blocks, threads, shared_bytes: shared_bytes as u32 };
        // SAFETY: all that the arguments point to lives as long as this, and a wait follows.
        unsafe { self.stream.launch(function, grid, args) }.with_context(|| kernel.to_owned())?;
        self.stream.wait().with_context(|| kernel.to_owned())?;
        self.check_guards().with_context(|| kernel.to_owned())
    }

    fn check_guards(&self) -> anyhow::Result<()> {
        let guard = self.card.guard_bytes;
        if guard == 0 {
            return Ok(());
        }
        let mut bytes = vec![0; guard];
        for memory in self.memory.borrow().iter() {
            let buffer = memory.bytes() - 2 * guard;
            for (start, place) in [(0, "before"), (guard + buffer, "behind")] {
                self.read(memory.start().add(start), &mut bytes)?;
                ensure!(bytes.iter().all(|&b| b == GUARD), "something was written {place} a buffer of {buffer} bytes");
            }
        }
        Ok(())
    }
}

impl Drop for Device<'_> {
    fn drop(&mut self) {
        // Memory must not be freed under a kernel that still runs; a failure was told by the call that met it.
        let _ = self.stream.wait();
    }
}
