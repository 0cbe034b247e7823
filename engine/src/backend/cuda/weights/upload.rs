//! Bytes on their way to the card: workers write them into pinned memory, piece by piece, while the pieces before are copied. However much is
//! uploaded, the host's memory holds two slots of it.

use std::ops::Range;

use tokenflow_gpu::{DevicePtr, Event, Gpu, GpuError, PinnedMemory, Stream};

use super::format::PLANES;
use crate::{backend::BackendError, progress::Progress};

/// Bytes of a slot: large enough that starting workers and copies costs little.
const SLOT_BYTES: usize = 16 << 20;
const SLOTS: usize = 2;
/// Pieces begin at pages, so that none shares one with a piece that is being copied.
const PAGE: usize = 4096;
/// A worker is worth its start for no less than this.
const WORKER_BYTES: usize = 256 << 10;

/// Rows of bytes in some planes, and how they are written.
pub(super) struct Rows<'a> {
    pub(super) count: usize,
    /// Bytes of a row in each plane.
    pub(super) each: [usize; PLANES],
    /// Where the planes begin on the card, with room for all rows.
    pub(super) to: [DevicePtr; PLANES],
    pub(super) write: &'a Write<'a>,
}

/// Writes some rows of each plane.
pub(super) type Write<'a> = dyn Fn(Range<usize>, [&mut [u8]; PLANES]) -> Result<(), BackendError> + Sync + 'a;

/// Copies in order, on a stream of its own.
pub(super) struct Uploader {
    gpu: Gpu,
    stream: Stream,
    workers: usize,
    /// Whether copies were issued that nobody has waited for.
    is_busy: bool,
    /// Recorded after all that was uploaded.
    mark: Event,
    /// Made when they are first needed, and given back when all is loaded.
    slots: Vec<Slot>,
    /// The slot that is being filled, and how far.
    current: usize,
    used: usize,
    progress: Option<(Progress, u64)>,
}

struct Slot {
    memory: PinnedMemory,
    /// Reached when the copies from here are done.
    copied: Event,
    is_copying: bool,
}

impl Uploader {
    pub(super) fn new(gpu: &Gpu) -> Result<Self, GpuError> {
        Ok(Self {
            stream: gpu.stream()?,
            mark: gpu.event()?,
            gpu: gpu.clone(),
            workers: 1,
            is_busy: false,
            slots: Vec::new(),
            current: 0,
            used: 0,
            progress: None,
        })
    }

    /// Packs by `workers` threads, and shows how far of so many bytes of a checkpoint loading is, until [`Uploader::finish`].
    pub(super) fn begin(&mut self, what: &str, bytes: usize, workers: usize) {
        self.workers = workers.max(1);
        self.progress = Some((Progress::new("loading", what, bytes as u64), 0));
    }

    /// So many more bytes of the checkpoint are on their way.
    pub(super) fn advance(&mut self, bytes: usize) {
        if let Some((progress, done)) = &mut self.progress {
            *done += bytes as u64;
            progress.at(*done);
        }
    }

    /// Issues the copies of all rows. What another stream is given after [`Uploader::order_before`] finds them done.
    pub(super) fn upload(&mut self, rows: &Rows<'_>) -> Result<(), BackendError> {
        let row_bytes: usize = rows.each.iter().sum();
        let mut next = 0;
        while next < rows.count && row_bytes > 0 {
            let room = self.room()?;
            let fit = room.saturating_sub(PLANES * PAGE) / row_bytes;
            let count = fit.min(rows.count - next);
            // A slot's end is not worth a piece of its own.
            if count == 0 || (count < rows.count - next && room < SLOT_BYTES / 2) {
                if self.used == 0 {
                    return Err(BackendError::Device(format!(
                        "a row of {row_bytes} bytes is more than {SLOT_BYTES} bytes, which are copied at a time"
                    )));
                }
                self.turn()?;
                continue;
            }
            self.piece(rows, next..next + count)?;
            next += count;
        }
        Ok(())
    }

    /// One plane of bytes as they are.
    pub(super) fn upload_bytes(&mut self, to: DevicePtr, bytes: &[u8]) -> Result<(), GpuError> {
        let write = |range: Range<usize>, [plane, ..]: [&mut [u8]; PLANES]| {
            plane.copy_from_slice(&bytes[range]);
            Ok(())
        };
        let to = [to, DevicePtr::NULL, DevicePtr::NULL, DevicePtr::NULL];
        self.upload(&Rows { count: bytes.len(), each: [1, 0, 0, 0], to, write: &write }).map_err(|error| match error {
            BackendError::Gpu(error) => error,
            other => GpuError::Call { call: "upload", reason: other.to_string() },
        })
    }

    /// Bytes that are left of the current slot, which can be written.
    fn room(&mut self) -> Result<usize, GpuError> {
        if self.slots.is_empty() {
            for _ in 0..SLOTS {
                self.slots.push(Slot { memory: self.gpu.allocate_pinned(SLOT_BYTES)?, copied: self.gpu.event()?, is_copying: false });
            }
        }
        let slot = &mut self.slots[self.current];
        if self.used == 0 && slot.is_copying {
            slot.copied.wait()?;
            slot.is_copying = false;
        }
        Ok(SLOT_BYTES - self.used)
    }

    /// Goes on with the next slot.
    fn turn(&mut self) -> Result<(), GpuError> {
        let slot = &mut self.slots[self.current];
        self.stream.record(&slot.copied)?;
        slot.is_copying = true;
        (self.current, self.used) = ((self.current + 1) % SLOTS, 0);
        Ok(())
    }

    /// Writes rows `range`, which fit, and issues their copies.
    fn piece(&mut self, rows: &Rows<'_>, range: Range<usize>) -> Result<(), BackendError> {
        let bytes = rows.each.map(|each| each * range.len());
        let mut end = self.used;
        let starts = bytes.map(|bytes| {
            let start = end;
            end = (start + bytes).next_multiple_of(PAGE);
            start
        });
        let memory = &mut self.slots[self.current].memory;
        // SAFETY: copies from this slot that are under way are of pages before `used`; others were waited for.
        let mut free = unsafe { memory.write(self.used..end) };
        let planes = bytes.map(|bytes| {
            let (piece, rest) = std::mem::take(&mut free).split_at_mut(bytes.next_multiple_of(PAGE));
            free = rest;
            &mut piece[..bytes]
        });
        write_by(self.workers, rows, range.clone(), planes)?;
        let start = memory.as_ptr();
        self.is_busy = true;
        for plane in 0..PLANES {
            if bytes[plane] > 0 {
                let to = rows.to[plane].add(range.start * rows.each[plane]);
                // SAFETY: the pages are written no more before the slot's event, and the planes have room for all rows.
                unsafe { self.stream.copy_to_device(to, start.add(starts[plane]), bytes[plane])? };
            }
        }
        self.used = end;
        Ok(())
    }

    /// What `stream` is given from now on comes after all that was uploaded.
    pub(super) fn order_before(&self, stream: &Stream) -> Result<(), GpuError> {
        self.stream.record(&self.mark)?;
        stream.wait_for(&self.mark)
    }

    /// Waits for the copies that are under way. A card that fails copies no more.
    pub(super) fn settle(&mut self) {
        if std::mem::take(&mut self.is_busy) {
            let _ = self.stream.wait();
        }
    }

    /// Waits until all is on the card, and gives the pinned memory back.
    pub(super) fn finish(&mut self) -> Result<(), GpuError> {
        self.stream.wait()?;
        self.is_busy = false;
        self.slots.clear();
        (self.current, self.used) = (0, 0);
        if let Some((progress, _)) = self.progress.take() {
            progress.finish();
        }
        Ok(())
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        // Pinned memory must not go while it is copied.
        self.settle();
    }
}

/// Shares the rows of a piece among threads.
fn write_by(workers: usize, rows: &Rows<'_>, range: Range<usize>, planes: [&mut [u8]; PLANES]) -> Result<(), BackendError> {
    let total: usize = planes.iter().map(|plane| plane.len()).sum();
    let workers = workers.min(total / WORKER_BYTES).min(range.len());
    if workers <= 1 {
        return (rows.write)(range, planes);
    }
    let share = range.len().div_ceil(workers);
    let mut rest = planes;
    std::thread::scope(|scope| {
        let mut running = Vec::with_capacity(workers);
        for start in range.clone().step_by(share) {
            let own = start..range.end.min(start + share);
            let mut plane = 0;
            let part = rest.each_mut().map(|bytes| {
                let (head, tail) = std::mem::take(bytes).split_at_mut(own.len() * rows.each[plane]);
                plane += 1;
                *bytes = tail;
                head
            });
            running.push(scope.spawn(move || (rows.write)(own, part)));
        }
        running.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
