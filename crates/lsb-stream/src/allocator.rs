//! How the allocator of the C library treats memory that is freed. The two calls here are unsafe because no crate wraps them.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether this process has a limit to stay below.
static LIMITED: AtomicBool = AtomicBool::new(false);

/// Gives memory back to the operating system as soon as it is freed, for the rest of this process. For programs that have to
/// stay below a limit: to be called before threads begin.
///
/// The C library's allocator (glibc) otherwise learns from the first large buffer that is freed to keep all up to 32 MB,
/// between which it strews small ones: the resident set of a calibration of 7B layers grew 90 MB beyond what was in use.
pub fn give_freed_memory_back() {
    LIMITED.store(true, Ordering::Relaxed);
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// Buffers from this size on are mapped, and unmapped when they are freed.
        const MAPPED: libc::c_int = 8 << 20;
        /// Free bytes at the top of the heap from which on they are given back.
        const TOP: libc::c_int = 16 << 20;
        /// Heaps of small buffers. Each thread with one of its own leaves holes in it that no other can use: what a deep model
        /// took at its peak grew with its layers, by 40 KB a tensor.
        const HEAPS: libc::c_int = 1;
        for (parameter, value) in
            [(libc::M_MMAP_THRESHOLD, MAPPED), (libc::M_TRIM_THRESHOLD, TOP), (libc::M_ARENA_MAX, HEAPS)]
        {
            // SAFETY: mallopt takes two numbers and has no conditions beside that; it fails where it does not know the first,
            // and all is as before.
            #[allow(unsafe_code)]
            let _ = unsafe { libc::mallopt(parameter, value) };
        }
    }
}

/// Gives back what is free now, in the middle of heaps too, where [`give_freed_memory_back`] was called. Buffers that are too
/// small to be mapped leave holes there: for callers that are about to take much memory. Takes about a millisecond.
pub fn give_back_now() {
    if !LIMITED.load(Ordering::Relaxed) {
        return;
    }
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: the function locks every heap on its own and may be called at any time.
        #[allow(unsafe_code)]
        let _ = unsafe { libc::malloc_trim(0) };
    }
}
