//! Small arrays on their way to the card: written into pinned memory, copied in stream order to a fixed place. Several may be under way.

use std::sync::Arc;

use tokenflow_gpu::{DevicePtr, Event, GpuError};

use super::{
    device::Device,
    memory::{Memory, Pinned},
};

/// Two steps in flight, and one that is written.
const SLOTS: usize = 3;

pub(super) struct Upload {
    slots: Vec<Slot>,
    next: usize,
    /// Where all copies go: what reads it is issued before the next copy.
    place: Memory,
    device: Arc<Device>,
}

struct Slot {
    pinned: Pinned,
    sent: Event,
    /// The number that `sent` was recorded with; 0 before.
    number: u64,
}

impl Upload {
    pub(super) fn new(device: &Arc<Device>, bytes: usize) -> Result<Self, GpuError> {
        let slot = |_| {
            let pinned = Pinned { memory: device.gpu.allocate_pinned(bytes)?, device: device.clone() };
            Ok(Slot { pinned, sent: device.gpu.event()?, number: 0 })
        };
        let slots = (0..SLOTS).map(slot).collect::<Result<_, _>>()?;
        Ok(Self { slots, next: 0, place: device.allocate(bytes)?, device: device.clone() })
    }

    /// Where the last copy went, null before there was one.
    pub(super) fn last(&self) -> DevicePtr {
        if self.slots.iter().any(|slot| slot.number > 0) { self.place.start() } else { DevicePtr::NULL }
    }

    /// Copies `bytes` bytes that `write` leaves in zeroed or old ones; the address of the first.
    pub(super) fn send(&mut self, bytes: usize, write: impl FnOnce(&mut [u8])) -> Result<DevicePtr, GpuError> {
        if bytes > self.place.bytes() {
            let device = self.device.clone();
            *self = Self::new(&device, bytes.next_power_of_two())?;
        }
        if bytes == 0 {
            return Ok(self.place.start());
        }
        let slot = &mut self.slots[self.next];
        self.next = (self.next + 1) % SLOTS;
        self.device.wait_for(&slot.sent, slot.number)?;
        // SAFETY: the last copy from here was waited for.
        write(unsafe { slot.pinned.memory.write(0..bytes) });
        // SAFETY: both are alive until the stream has been waited for, of `bytes` bytes, and this slot is written again after the event only.
        unsafe { self.device.stream.copy_to_device(self.place.start(), slot.pinned.memory.as_ptr(), bytes)? };
        slot.number = self.device.record(&slot.sent)?;
        Ok(self.place.start())
    }
}

/// Arrays one after the other, each at a multiple of 16 bytes.
#[derive(Default)]
pub(super) struct Packed<'a> {
    parts: Vec<(usize, &'a [u8])>,
    end: usize,
}

impl<'a> Packed<'a> {
    /// Its offset.
    pub(super) fn add<T: bytemuck::NoUninit>(&mut self, values: &'a [T]) -> usize {
        let at = self.end;
        self.parts.push((at, bytemuck::cast_slice(values)));
        self.end = (at + size_of_val(values)).next_multiple_of(16);
        at
    }

    pub(super) fn send(self, upload: &mut Upload) -> Result<DevicePtr, GpuError> {
        upload.send(self.end, |to| self.parts.iter().for_each(|(at, bytes)| to[*at..at + bytes.len()].copy_from_slice(bytes)))
    }
}
