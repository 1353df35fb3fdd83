//! Both kinds of store hold the same values.

use super::*;

/// Slot `i` after `round` writes: odd bit patterns included.
fn values(i: usize, len: usize, round: u32) -> Vec<f32> {
    (0..len as u32).map(|j| f32::from_bits((j + 7 * i as u32 + round).wrapping_mul(2_654_435_761))).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn values_come_back_bit_for_bit_from_memory_and_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let lens = vec![3, 0, 70_000, 1, 131_072];
    let bytes = 4 * lens.iter().sum::<usize>() as u64;
    for limit in [bytes, bytes - 1] {
        let budget = Budget::new(limit);
        let store = ActivationStore::new(&budget, lens.clone(), Some(dir.path())).unwrap();
        assert_eq!((store.len(), store.is_empty(), store.is_spilled()), (5, false, limit < bytes));
        assert_eq!(budget.used(), if store.is_spilled() { 0 } else { bytes });
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the file has no name");
        let mut out = vec![1.0; 9];
        for round in 0..2 {
            std::thread::scope(|scope| {
                for (i, len) in lens.iter().enumerate().rev() {
                    let store = &store;
                    scope.spawn(move || store.put(i, &values(i, *len, round)).unwrap());
                }
            });
            for (i, len) in lens.iter().enumerate() {
                store.get(i, &mut out).unwrap();
                assert_eq!(bits(&out), bits(&values(i, *len, round)));
            }
        }
        let moved = if store.is_spilled() { 2 * bytes } else { 0 };
        assert_eq!((store.bytes_written(), store.bytes_read()), (moved, moved));
        drop(store);
        assert_eq!(budget.used(), 0);
    }
}

#[test]
fn misuse_is_an_error() {
    for limit in [0, 100] {
        let store = ActivationStore::new(&Budget::new(limit), vec![2, 3], None).unwrap();
        let mut out = Vec::new();
        assert!(store.get(1, &mut out).unwrap_err().to_string().contains("before anything was put"));
        assert!(store.put(1, &[1.0]).unwrap_err().to_string().contains("which holds 3"));
        assert!(store.put(2, &[1.0]).unwrap_err().to_string().contains("slot 2 of 2"));
        assert!(store.get(2, &mut out).is_err());
        store.put(0, &[1.0, 2.0]).unwrap();
    }
    assert!(ActivationStore::new(&Budget::new(0), vec![], None).unwrap().is_empty());
}

#[test]
fn a_disk_without_room_is_told_before_work_starts() {
    let dir = tempfile::tempdir().unwrap();
    let name = dir.path().display().to_string();
    // More than any disk has, and than some file systems can count.
    let e = ActivationStore::new(&Budget::new(0), vec![usize::MAX / 16], Some(dir.path())).unwrap_err();
    assert!(matches!(e, Error::Refused { .. }), "{e:?}");
    let e = e.to_string();
    assert!(e.contains(&name) && e.contains("4611686018427387900 bytes") && e.contains("TMPDIR"), "{e}");
    assert!(ActivationStore::new(&Budget::new(0), vec![usize::MAX; 3], Some(dir.path())).is_err());
    let nowhere = dir.path().join("nowhere");
    let e = ActivationStore::new(&Budget::new(0), vec![1], Some(&nowhere)).unwrap_err().to_string();
    assert!(e.contains("nowhere"), "{e}");
}
