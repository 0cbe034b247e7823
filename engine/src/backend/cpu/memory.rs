//! Zeroed memory for weights, caches and scratch, aligned for vectors.
//! Large regions come straight from the kernel in huge pages where it has them, and cost nothing until touched.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    ops::Range,
    ptr::NonNull,
};

use crate::backend::BackendError;

const ALIGN: usize = 64;
const HUGE_PAGE: usize = 2 << 20;
#[cfg(target_os = "linux")]
const PAGE: usize = 4096;

/// Owned bytes at a fixed address.
pub(super) struct Region {
    start: NonNull<u8>,
    len: usize,
    origin: Origin,
}

enum Origin {
    Empty,
    Heap(Layout),
    Mapped { base: NonNull<u8>, len: usize },
}

// SAFETY: a region is plain memory that it owns; access is governed by borrows of the region or by its user's own reasoning.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Default for Region {
    fn default() -> Self {
        Self { start: NonNull::dangling(), len: 0, origin: Origin::Empty }
    }
}

impl Region {
    /// # Errors
    /// When memory is short.
    pub(super) fn zeroed(what: &'static str, bytes: usize) -> Result<Self, BackendError> {
        if bytes == 0 {
            return Ok(Self::default());
        }
        let region = if bytes >= HUGE_PAGE { Self::map(bytes) } else { Self::allocate(bytes) };
        region.ok_or(BackendError::OutOfMemory { what, bytes })
    }

    fn allocate(bytes: usize) -> Option<Self> {
        let layout = Layout::from_size_align(bytes, ALIGN).ok()?;
        // SAFETY: the size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Self { start, len: bytes, origin: Origin::Heap(layout) })
    }

    fn map(bytes: usize) -> Option<Self> {
        let len = bytes.checked_add(HUGE_PAGE)?;
        // SAFETY: a new private mapping without a file; the result is checked.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
        };
        if base == libc::MAP_FAILED {
            return None;
        }
        let base = NonNull::new(base.cast::<u8>())?;
        let skip = base.as_ptr().align_offset(HUGE_PAGE);
        // SAFETY: the mapping is longer than `bytes` by one huge page, so the aligned start lies inside.
        let start = unsafe { base.add(skip) };
        #[cfg(target_os = "linux")]
        // SAFETY: advice on our own mapping; a kernel without huge pages refuses it and nothing changes.
        unsafe {
            libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE);
        }
        Some(Self { start, len: bytes, origin: Origin::Mapped { base, len } })
    }

    /// Has the kernel provide the pages of a part now rather than when they are first written, which changes nothing else. Kernels that
    /// cannot (before Linux 5.14) leave it as it is.
    pub(super) fn populate(&self, part: Range<usize>) {
        assert!(part.start <= part.end && part.end <= self.len, "{part:?} of {} bytes", self.len);
        #[cfg(target_os = "linux")]
        if let Origin::Mapped { .. } = self.origin {
            let start = (self.start.as_ptr() as usize + part.start).next_multiple_of(PAGE);
            let end = (self.start.as_ptr() as usize + part.end) / PAGE * PAGE;
            if start < end {
                // SAFETY: whole pages of our own mapping, whose contents the call does not change.
                unsafe {
                    libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_POPULATE_WRITE);
                }
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn as_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    /// For writers that share the region and keep to disjoint parts of it; see the callers.
    pub(super) fn as_shared_mut_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        match self.origin {
            Origin::Empty => {}
            // SAFETY: allocated with this layout and not freed before.
            Origin::Heap(layout) => unsafe { dealloc(self.start.as_ptr(), layout) },
            Origin::Mapped { base, len } => {
                // SAFETY: mapped by us at this address and length and not unmapped before.
                unsafe { libc::munmap(base.as_ptr().cast(), len) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_zeroed_aligned_and_refused_when_absurd() {
        for bytes in [0, 1, 100, HUGE_PAGE + 1] {
            let region = Region::zeroed("test", bytes).expect("small");
            region.populate(0..bytes);
            region.populate(bytes / 2..bytes / 2 + bytes / 3);
            assert_eq!(region.len(), bytes);
            assert!(bytes == 0 || (region.as_ptr() as usize).is_multiple_of(ALIGN));
            // SAFETY: all bytes are initialised to zero and owned by the region.
            assert!(unsafe { std::slice::from_raw_parts(region.as_ptr(), bytes) }.iter().all(|b| *b == 0));
        }
        let error = Region::zeroed("the test", usize::MAX / 2).err().expect("refused").to_string();
        assert!(error.contains("the test"), "{error}");
    }
}
