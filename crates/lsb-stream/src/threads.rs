//! How many threads are worth starting here.

use std::collections::BTreeSet;

/// Threads to start where nobody said how many: one for each physical core this process may run on, as affinity and
/// the quota of its control group limit it. `RAYON_NUM_THREADS` overrides that, as it does for every rayon pool.
///
/// Two hardware threads of one core share its arithmetic units, which decoding and multiplying keep busy on their own:
/// a second thread there costs memory and wins next to nothing.
pub fn default_threads() -> usize {
    let wanted = std::env::var("RAYON_NUM_THREADS").ok().and_then(|n| n.parse().ok());
    if let Some(n) = wanted.filter(|&n| n > 0) {
        return n;
    }
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    allowed_cpus().map_or(available, |cpus| available.min(physical_cores(&cpus, siblings)).max(1))
}

/// The number that was asked for; 0 stands for [`default_threads`].
pub fn threads_or_default(threads: usize) -> usize {
    if threads == 0 { default_threads() } else { threads }
}

/// Logical CPUs that the calling thread may run on, where the operating system tells (Linux).
fn allowed_cpus() -> Option<Vec<usize>> {
    let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    cpu_list(list)
}

/// The logical CPUs that share a core with one of them, as the kernel lists them.
fn siblings(cpu: usize) -> Option<String> {
    std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")).ok()
}

/// Different cores among `cpus`. What nothing is known of counts as a core of its own.
fn physical_cores(cpus: &[usize], siblings: impl Fn(usize) -> Option<String>) -> usize {
    let first =
        |&cpu: &usize| siblings(cpu).and_then(|list| cpu_list(&list)?.first().copied()).unwrap_or(cpu);
    cpus.iter().map(first).collect::<BTreeSet<usize>>().len()
}

/// Reads a list such as `0-3,8`. `None` where it is none.
fn cpu_list(text: &str) -> Option<Vec<usize>> {
    // More than any machine has: a range is not believed before it is written out.
    const MOST: usize = 1 << 16;
    let mut cpus = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= MOST {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four cores with two hardware threads each, numbered as most servers do it.
    fn four_cores(cpu: usize) -> Option<String> {
        (cpu < 8).then(|| format!("{},{}\n", cpu % 4, cpu % 4 + 4))
    }

    #[test]
    fn siblings_of_one_core_count_once() {
        assert_eq!(physical_cores(&[0, 1, 2, 3, 4, 5, 6, 7], four_cores), 4);
        assert_eq!(physical_cores(&[0, 4], four_cores), 1);
        assert_eq!(physical_cores(&[5, 6, 7], four_cores), 3, "a core whose first thread is not allowed");
        assert_eq!(physical_cores(&[1, 5, 2], four_cores), 2);
    }

    #[test]
    fn unknown_topology_leaves_every_cpu_a_core() {
        assert_eq!(physical_cores(&[0, 1, 2], |_| None), 3);
        assert_eq!(physical_cores(&[0, 1, 2], |_| Some("nonsense".into())), 3);
    }

    #[test]
    fn lists_of_the_kernel_are_read() {
        assert_eq!(cpu_list("\t0-3,8\n"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(cpu_list("5"), Some(vec![5]));
        for bad in ["", "a", "3-1", "0-99999999999", "1,,2", "0-70000"] {
            assert_eq!(cpu_list(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_default_is_within_what_is_available() {
        let available = std::thread::available_parallelism().map_or(1, usize::from);
        if std::env::var_os("RAYON_NUM_THREADS").is_none() {
            assert!((1..=available).contains(&default_threads()));
        }
        assert_eq!(threads_or_default(3), 3);
        assert_eq!(threads_or_default(0), default_threads());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_tells_which_cpus_are_allowed() {
        assert!(!allowed_cpus().unwrap().is_empty());
    }
}
