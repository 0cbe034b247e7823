//! Working memory of kernels: one piece per thread, and one that all threads share within an operation.
//! It grows to the largest size seen and is kept.

use parking_lot::{Mutex, MutexGuard};

use super::memory::Region;

/// Plain values for which all bits zero is a value.
pub(super) trait Plain: Copy {}
impl Plain for f32 {}
impl Plain for u8 {}
impl Plain for u32 {}
impl Plain for [f32; 2] {}

/// Aligned memory that is handed out as a slice of whatever type a kernel wants.
#[derive(Default)]
pub(super) struct Scratch(Region);

impl Scratch {
    /// A slice of `len` values that are valid but unspecified.
    ///
    /// # Panics
    /// When memory is short: scratch is a few megabytes at most.
    pub(super) fn slice<T: Plain>(&mut self, len: usize) -> &mut [T] {
        let bytes = len * size_of::<T>();
        if self.0.len() < bytes {
            self.0 = Region::zeroed("scratch", bytes.next_power_of_two().max(4096)).unwrap_or_else(|e| panic!("{e}"));
        }
        // SAFETY: large enough, aligned to 64, initialised, borrowed exclusively, and any bits are a valid `T`.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_shared_mut_ptr().cast(), len) }
    }
}

/// What a thread keeps for itself. The names say what linear layers and attention use them for.
#[derive(Default)]
pub(super) struct Own {
    pub packed: Scratch,
    pub sums: Scratch,
    pub unpacked: Scratch,
    pub scores: Scratch,
    pub weights: Scratch,
    pub factors: Scratch,
    pub copies: Scratch,
}

pub(super) struct PerThread(Vec<Mutex<Own>>);

impl PerThread {
    pub(super) fn new(threads: usize) -> Self {
        Self((0..threads).map(|_| Mutex::default()).collect())
    }

    /// Never contended: an operation calls it once on each thread with its own index.
    pub(super) fn lock(&self, thread: usize) -> MutexGuard<'_, Own> {
        self.0[thread].lock()
    }
}

/// A pointer that threads share because they keep to disjoint parts of what it points to.
pub(super) struct Shared<T>(*mut T);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<T> {}

// SAFETY: each use says which part it keeps to.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(super) fn new(values: &mut [T]) -> Self {
        Self(values.as_mut_ptr())
    }

    pub(super) fn from_ptr(start: *mut T) -> Self {
        Self(start)
    }

    pub(super) fn get(self) -> *mut T {
        self.0
    }

    /// # Safety
    /// The part must lie within the slice that `self` was made of, which must still be borrowed, and no other thread may use it.
    pub(super) unsafe fn part<'a>(self, start: usize, len: usize) -> &'a mut [T] {
        // SAFETY: promised by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }
}
