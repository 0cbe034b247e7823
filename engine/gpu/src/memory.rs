//! Memory with an owner.

use std::{ops::Range, sync::Arc};

use crate::{DevicePtr, Driver, GpuError};

/// Memory of the card, freed with this. Whoever drops it must know that no stream still works with it.
pub struct DeviceMemory {
    driver: Arc<dyn Driver>,
    start: DevicePtr,
    bytes: usize,
}

impl DeviceMemory {
    pub(crate) fn new(driver: &Arc<dyn Driver>, bytes: usize) -> Result<Self, GpuError> {
        let start = if bytes == 0 { DevicePtr::NULL } else { driver.allocate(bytes)? };
        Ok(Self { driver: driver.clone(), start, bytes })
    }

    pub fn start(&self) -> DevicePtr {
        self.start
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        if self.bytes > 0 {
            // SAFETY: allocated by this driver, and nobody's any more.
            unsafe { self.driver.free(self.start) };
        }
    }
}

/// Memory of the host that copies to and from the card work with while the host goes on.
pub struct PinnedMemory {
    driver: Arc<dyn Driver>,
    start: *mut u8,
    bytes: usize,
}

// SAFETY: plain memory with one owner.
unsafe impl Send for PinnedMemory {}
// SAFETY: shared references only read.
unsafe impl Sync for PinnedMemory {}

impl PinnedMemory {
    pub(crate) fn new(driver: &Arc<dyn Driver>, bytes: usize) -> Result<Self, GpuError> {
        let start = if bytes == 0 { std::ptr::dangling_mut() } else { driver.allocate_pinned(bytes)? };
        if bytes > 0 {
            // SAFETY: just allocated with this length.
            unsafe { start.write_bytes(0, bytes) };
        }
        Ok(Self { driver: driver.clone(), start, bytes })
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn as_ptr(&self) -> *mut u8 {
        self.start
    }

    /// # Safety
    /// No copy to here may be under way.
    pub unsafe fn read(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.bytes, "{range:?} of {} bytes", self.bytes);
        // SAFETY: in bounds, initialised, and by the caller's word written by nobody.
        unsafe { std::slice::from_raw_parts(self.start.add(range.start), range.len()) }
    }

    /// # Safety
    /// No copy from or to here may be under way.
    pub unsafe fn write(&mut self, range: Range<usize>) -> &mut [u8] {
        assert!(range.start <= range.end && range.end <= self.bytes, "{range:?} of {} bytes", self.bytes);
        // SAFETY: in bounds, initialised, borrowed for as long, and by the caller's word read and written by nobody else.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

impl Drop for PinnedMemory {
    fn drop(&mut self) {
        if self.bytes > 0 {
            // SAFETY: allocated by this driver, and nobody's any more.
            unsafe { self.driver.free_pinned(self.start) };
        }
    }
}
