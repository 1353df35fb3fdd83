//! What the operating system says about this process.

/// Peak resident set of this process in bytes; 0 where the operating system does not say.
pub fn peak_rss_bytes() -> u64 {
    proc_status("VmHWM:")
}

/// Starts the peak again from what is resident now, where the operating system can (Linux). Elsewhere the peak of
/// the whole process stays.
pub fn reset_peak_rss() {
    // Refused in some containers; the peak is then too large, never too small.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// A field of `/proc/self/status`, which counts in units of 1024 bytes.
fn proc_status(field: &str) -> u64 {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return 0 };
    status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.trim().split(' ').next())
        .and_then(|kib| kib.parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn the_peak_grows_with_touched_memory() {
        let before = super::peak_rss_bytes();
        assert!(before > 0);
        let block = std::hint::black_box(vec![1u8; 64 << 20]);
        assert!(super::peak_rss_bytes() >= before.max(block.len() as u64));
    }
}
