//! How the allocator of the C library treats memory that is freed. The one thing here is unsafe because no crate wraps that call.

/// Gives memory back to the operating system as soon as it is freed, for the rest of this process. For programs that have to
/// stay below a limit: to be called before threads begin.
///
/// The C library's allocator (glibc) otherwise learns from the first large buffer that is freed to keep all up to 32 MB,
/// between which it strews small ones: the resident set of a calibration of 7B layers grew 90 MB beyond what was in use.
pub fn give_freed_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// Buffers from this size on are mapped, and unmapped when they are freed.
        const MAPPED: libc::c_int = 8 << 20;
        /// Free bytes at the top of the heap from which on they are given back.
        const TOP: libc::c_int = 16 << 20;
        for (parameter, value) in [(libc::M_MMAP_THRESHOLD, MAPPED), (libc::M_TRIM_THRESHOLD, TOP)] {
            // SAFETY: mallopt takes two numbers and has no conditions beside that; it fails where it does not know the first,
            // and all is as before.
            #[allow(unsafe_code)]
            let _ = unsafe { libc::mallopt(parameter, value) };
        }
    }
}
