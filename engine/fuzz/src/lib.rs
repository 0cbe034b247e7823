//! What all targets share: an allocator that ends the run where a parser asks for more memory than its input can justify.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    process::abort,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Largest single allocation. Inputs are kilobytes; tables that a library makes once are below this.
const MAX_ALLOCATION: usize = 64 << 20;
/// Most memory in use at once.
const MAX_TOTAL: usize = 1 << 30;

struct Limited;

static TOTAL: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let total = TOTAL.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        if layout.size() > MAX_ALLOCATION || total > MAX_TOTAL {
            eprintln!("{} bytes were asked for, {total} are in use", layout.size());
            abort();
        }
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        TOTAL.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Limited = Limited;

/// Keeps this crate, and with it the allocator, in a target.
pub fn limit_memory() {}
