//! A global allocator that remembers the largest request.
//!
//! `unsafe` is needed because [`GlobalAlloc`] is an unsafe trait; every call is passed on unchanged.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The system allocator, with the largest request remembered.
pub struct Watched;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

/// Requests above this many bytes fail, so that a decoder gone wrong cannot take the machine with it.
const HARD_LIMIT: usize = 4 << 30;

/// Forgets, and returns, the largest request since the last call, in bytes.
pub(super) fn take_largest() -> usize {
    LARGEST.swap(0, Relaxed)
}

/// True where the request may go on.
fn note(size: usize) -> bool {
    if size > LARGEST.load(Relaxed) {
        LARGEST.fetch_max(size, Relaxed);
    }
    size <= HARD_LIMIT
}

// SAFETY: every method passes its arguments to `System` unchanged, or returns null, which the trait allows.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if note(layout.size()) {
            // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
            unsafe { System.alloc(layout) }
        } else {
            std::ptr::null_mut()
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if note(layout.size()) {
            // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc_zeroed`.
            unsafe { System.alloc_zeroed(layout) }
        } else {
            std::ptr::null_mut()
        }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `System` with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if note(new_size) {
            // SAFETY: `ptr` came from `System` with this layout; the caller keeps the rest of the contract.
            unsafe { System.realloc(ptr, layout, new_size) }
        } else {
            std::ptr::null_mut()
        }
    }
}
