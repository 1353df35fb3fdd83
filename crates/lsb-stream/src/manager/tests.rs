//! What the manager promises: order, content, window, budget, no hang.

use super::*;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};

/// Tensor `t` holds the bytes `(t + i) % 251`; reading past `fail_at` bytes in total fails.
#[derive(Debug)]
struct Fake {
    read: AtomicU64,
    fail_at: u64,
}

impl Fake {
    fn new(fail_at: u64) -> Arc<Self> {
        Arc::new(Fake { read: AtomicU64::new(0), fail_at })
    }
}

fn byte(tensor: usize, i: u64) -> u8 {
    ((tensor as u64 + i) % 251) as u8
}

impl TensorBytes for Fake {
    fn read(&self, tensor: usize, offset: u64, out: &mut [u8]) -> Result<()> {
        let before = self.read.fetch_add(out.len() as u64, Ordering::Relaxed);
        if before + out.len() as u64 > self.fail_at {
            return Err(Error::Config("planned failure".into()));
        }
        for (i, b) in out.iter_mut().enumerate() {
            *b = byte(tensor, offset + i as u64);
        }
        Ok(())
    }
}

fn items(layers: &[&[u64]]) -> Vec<WorkItem> {
    let mut out = Vec::new();
    for (layer, rows) in layers.iter().enumerate() {
        for &rows in *rows {
            let tiling = Tiling::standard(rows, 1 << 18).unwrap();
            out.push(WorkItem { tensor: out.len(), layer, dtype: DType::BF16, tiling });
        }
    }
    out
}

fn options(prefetch: bool, caching: bool, resident_mb: u64) -> ManagerOptions {
    ManagerOptions { max_layers_in_ram: 1, prefetch, caching, resident_bytes: resident_mb << 20 }
}

/// Three passes over everything; checks content, digest and order.
fn walk(mut manager: StreamingManager, items: &[WorkItem]) {
    for (position, item) in items.iter().enumerate() {
        let mut lease = manager.next_tensor().unwrap().unwrap();
        assert_eq!(lease.position(), position);
        for pass in 0..3 {
            let mut at = 0;
            let whole = lease
                .pass(|chunk| {
                    for (i, &b) in chunk.bytes.iter().enumerate().step_by(4099) {
                        assert_eq!(b, byte(item.tensor, at + i as u64));
                    }
                    at += chunk.bytes.len() as u64;
                    Ok(if pass == 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
                })
                .unwrap();
            assert_eq!(whole, pass != 1 || item.bytes() == 0);
        }
        let mut expected = blake3::Hasher::new();
        let bytes: Vec<u8> = (0..item.bytes()).map(|i| byte(item.tensor, i)).collect();
        expected.update(&bytes);
        assert_eq!(lease.digest(), Some(*expected.finalize().as_bytes()));
        assert_eq!(manager.layers_in_ram(), 1);
    }
    assert!(manager.next_tensor().is_none());
    assert_eq!(manager.peak_layers_in_ram(), 1);
}

#[test]
fn every_mode_hands_out_the_same_bytes_in_order() {
    let items = items(&[&[1, 30], &[20, 0, 2], &[3]]);
    for prefetch in [false, true] {
        for caching in [false, true] {
            for resident_mb in [1, 8, 64] {
                let budget = Budget::new(24 << 20);
                let manager = StreamingManager::new(
                    Fake::new(u64::MAX),
                    items.clone(),
                    budget.clone(),
                    options(prefetch, caching, resident_mb.min(20)),
                );
                walk(manager, &items);
                assert_eq!(budget.used(), 0);
            }
        }
    }
}

#[test]
fn a_tensor_that_fits_is_read_once_and_a_larger_one_once_per_pass() {
    let one = items(&[&[20]]);
    for (resident_mb, times) in [(32, 1), (1, 2)] {
        let fake = Fake::new(u64::MAX);
        let mut manager = StreamingManager::new(
            fake.clone(),
            one.clone(),
            Budget::new(64 << 20),
            options(false, true, resident_mb),
        );
        let mut lease = manager.next_tensor().unwrap().unwrap();
        for _ in 0..2 {
            lease.pass(|_| Ok(ControlFlow::Continue(()))).unwrap();
        }
        assert_eq!(fake.read.load(Ordering::Relaxed), times * one[0].bytes());
    }
}

#[test]
fn a_failed_read_ends_the_pass_with_its_error_and_nothing_hangs() {
    for prefetch in [false, true] {
        for resident_mb in [1, 32] {
            let items = items(&[&[20], &[20]]);
            let options = options(prefetch, true, resident_mb);
            let mut manager =
                StreamingManager::new(Fake::new(9 << 20), items, Budget::new(48 << 20), options);
            let mut lease = manager.next_tensor().unwrap().unwrap();
            let error = lease.pass(|_| Ok(ControlFlow::Continue(()))).unwrap_err();
            assert!(error.to_string().contains("planned failure"), "{error}");
        }
    }
}

#[test]
fn dropping_the_manager_early_stops_the_reader() {
    for taken in 0..3 {
        let items = items(&[&[20, 20], &[20]]);
        let budget = Budget::new(12 << 20);
        let mut manager =
            StreamingManager::new(Fake::new(u64::MAX), items, budget.clone(), options(true, true, 1));
        for _ in 0..taken {
            drop(manager.next_tensor().unwrap().unwrap());
        }
        drop(manager);
        assert_eq!(budget.used(), 0);
    }
}
