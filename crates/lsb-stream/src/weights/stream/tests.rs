//! Streams over a source that records who reads what and can be made to wait or fail.

use super::*;
use crate::weights::{MemoryWeights, Scratch, TensorFacts};
use crate::{Error, Reservation};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bytes of every tensor.
const SIZE: u64 = 400;

/// Tensors of [`SIZE`] bytes, `per_layer` to a layer.
#[derive(Debug)]
struct Recorder {
    inner: MemoryWeights,
    facts: Vec<TensorFacts>,
    /// Tensors held and opened, in order.
    held: Mutex<Vec<usize>>,
    opened: Mutex<Vec<usize>>,
    /// Tensors whose holding fails, once for each time they are here.
    failing: Mutex<Vec<usize>>,
    panics_at: Option<usize>,
    bytes: AtomicU64,
}

impl Recorder {
    fn new(tensors: usize, per_layer: usize) -> Self {
        let mut inner = MemoryWeights::new();
        for i in 0..tensors {
            let values: Vec<f32> = (0..SIZE / 4).map(|j| (i as u64 * 1000 + j) as f32).collect();
            inner = inner.with_f32(&format!("t{i}"), &[SIZE / 4], &values).unwrap();
        }
        let mut facts = inner.tensors().to_vec();
        for (i, f) in facts.iter_mut().enumerate() {
            f.layer = format!("layer {}", i / per_layer);
        }
        Recorder {
            inner,
            facts,
            held: Mutex::default(),
            opened: Mutex::default(),
            failing: Mutex::default(),
            panics_at: None,
            bytes: AtomicU64::new(0),
        }
    }

    fn held(&self) -> Vec<usize> {
        self.held.lock().unwrap().clone()
    }
}

impl WeightSource for Recorder {
    fn tensors(&self) -> &[TensorFacts] {
        &self.facts
    }

    fn open(&self, tensor: usize) -> Result<Box<dyn TensorWeights>> {
        self.opened.lock().unwrap().push(tensor);
        self.inner.open(tensor)
    }

    fn hold(&self, tensor: usize) -> Result<Box<dyn TensorWeights>> {
        self.held.lock().unwrap().push(tensor);
        assert_ne!(self.panics_at, Some(tensor), "made for the test");
        let mut failing = self.failing.lock().unwrap();
        if let Some(at) = failing.iter().position(|t| *t == tensor) {
            failing.remove(at);
            return Err(lsb_format::Error::corruption("P21", "made for the test").into());
        }
        let held = self.inner.hold(tensor)?;
        self.bytes.fetch_add(SIZE, Ordering::Relaxed);
        Ok(held)
    }

    fn held_bytes(&self, tensor: usize) -> u64 {
        self.inner.held_bytes(tensor)
    }

    fn bytes_read(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

fn stream(source: &Arc<Recorder>, order: &[usize], budget: &Budget, options: StreamOptions) -> WeightStream {
    let source: Arc<dyn WeightSource> = Arc::clone(source) as _;
    WeightStream::new(source, order.to_vec(), budget, options).unwrap()
}

fn options(max_layers_in_ram: usize, prefetch: bool, caching: bool) -> StreamOptions {
    StreamOptions { max_layers_in_ram, prefetch, caching }
}

/// A limit of which weights may take `tensors` tensors.
fn room_for(tensors: u64) -> u64 {
    tensors * SIZE * 8 / 7 + 1
}

/// Waits until the reader has done what it may, as far as `done` can tell, and then a little longer.
fn settle(done: impl Fn() -> bool) {
    for _ in 0..2000 {
        if done() {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(done(), "the reader did not come that far");
    std::thread::sleep(Duration::from_millis(15));
}

fn check(weights: &dyn TensorWeights, tensor: usize) {
    let mut out = [0.0];
    weights.read_f32(7..8, &mut out, &mut Scratch::default()).unwrap();
    assert_eq!(out[0], (tensor * 1000 + 7) as f32);
    assert_eq!(weights.facts().name, format!("t{tensor}"));
}

#[test]
fn what_fits_is_read_once_in_all() {
    for prefetch in [false, true] {
        let source = Arc::new(Recorder::new(9, 2));
        let (budget, order) = (Budget::new(room_for(8)), [3, 1, 0, 2, 5, 4, 7, 6]);
        let stream = stream(&source, &order, &budget, options(1, prefetch, true));
        assert_eq!(budget.used(), 8 * SIZE, "promised at once");
        if prefetch {
            settle(|| source.held().len() == 8);
        }
        for _ in 0..3 {
            for tensor in order {
                check(&*stream.tensor(tensor).unwrap(), tensor);
            }
        }
        assert_eq!(source.held(), order);
        // Nothing is left for a tensor outside of the order.
        check(&*stream.tensor(8).unwrap(), 8);
        let figures = stream.figures();
        assert_eq!((figures.resident, figures.not_held, figures.bytes_read), (true, 1, 8 * SIZE));
        let last = stream.tensor(3).unwrap();
        drop(stream);
        assert_eq!((budget.used(), budget.peak()), (8 * SIZE, 8 * SIZE), "as long as one tensor is in use");
        drop(last);
        assert_eq!(budget.used(), 0);
    }
}

#[test]
fn the_reader_keeps_to_its_layers_and_to_the_pass() {
    let source = Arc::new(Recorder::new(8, 2));
    let (budget, order) = (Budget::new(1 << 20), [0, 1, 2, 3, 4, 5, 6, 7]);
    let stream = stream(&source, &order, &budget, options(1, true, false));
    settle(|| source.held().len() == 4);
    assert_eq!(source.held(), [0, 1, 2, 3], "the first layer and the next");
    for (tensor, ahead) in [(0, 4), (1, 4), (2, 6), (3, 6), (4, 8), (5, 8), (6, 8)] {
        check(&*stream.tensor(tensor).unwrap(), tensor);
        settle(|| source.held().len() == ahead);
        assert_eq!(source.held(), (0..ahead).collect::<Vec<_>>());
    }
    drop(stream.tensor(7).unwrap());
    settle(|| true);
    assert_eq!((source.held().len(), budget.used()), (8, 0), "one pass reads nothing twice");
    // Told of another pass, the reader goes over the end, to the next layer and no further.
    stream.expect_another_pass(true);
    settle(|| source.held().len() == 10);
    assert_eq!(source.held()[8..], [0, 1]);
    stream.expect_another_pass(false);
    for tensor in order {
        drop(stream.tensor(tensor).unwrap());
    }
    settle(|| true);
    assert_eq!((stream.figures().bytes_read, stream.figures().not_held), (16 * SIZE, 0));
}

#[test]
fn passes_without_notice_and_without_a_thread_read_once_each() {
    for (prefetch, layers) in [(false, 1), (true, 1), (true, 0)] {
        let source = Arc::new(Recorder::new(6, 1));
        let (budget, order) = (Budget::new(room_for(3)), [0, 1, 2, 3, 4, 5]);
        let stream = stream(&source, &order, &budget, options(layers, prefetch, true));
        for pass in 1..=3 {
            for tensor in order {
                check(&*stream.tensor(tensor).unwrap(), tensor);
            }
            settle(|| true);
            assert_eq!(stream.figures().bytes_read, pass * 6 * SIZE);
        }
        assert!(!stream.figures().resident && budget.used() == 0);
        assert!(budget.peak() <= 3 * SIZE, "an eighth stays free: {}", budget.peak());
        // The reader and the thread that asks may read neighbours at the same time.
        let mut held = source.held();
        held.chunks_mut(order.len()).for_each(|pass| pass.sort_unstable());
        assert_eq!(held, order.repeat(3));
    }
}

#[test]
fn memory_comes_back_when_the_last_user_is_done() {
    let source = Arc::new(Recorder::new(4, 1));
    let budget = Budget::new(room_for(2));
    let stream = stream(&source, &[0, 1, 2, 3], &budget, options(0, true, false));
    let a = stream.tensor(0).unwrap();
    let again = stream.tensor(0).unwrap();
    assert!(Arc::ptr_eq(&a, &again), "the same as long as somebody has it");
    settle(|| source.held().len() == 2);
    let b = stream.tensor(1).unwrap();
    // Both are in use: the next one cannot be held, and nobody waits for that.
    let c = stream.tensor(2).unwrap();
    check(&*c, 2);
    assert!(Arc::ptr_eq(&c, &stream.tensor(2).unwrap()));
    assert_eq!((stream.figures().not_held, source.held().len()), (1, 2));
    drop(a);
    settle(|| source.held().len() == 2);
    drop(again);
    settle(|| source.held().len() == 3);
    drop(b);
    assert_eq!(*source.opened.lock().unwrap(), [2]);
    assert_eq!(source.held(), [0, 1, 3]);
    check(&*stream.tensor(3).unwrap(), 3);
    assert_eq!((budget.peak(), budget.used()), (2 * SIZE, 0));
}

#[test]
fn a_tiny_budget_stops_nobody() {
    for limit in [0, 1, SIZE - 1, 2 * SIZE - 1, 2 * SIZE] {
        let source = Arc::new(Recorder::new(4, 1));
        let budget = Budget::new(limit);
        let taken = budget.reserve(limit / 2, "other things").unwrap();
        let stream = stream(&source, &[0, 1, 2, 3], &budget, options(0, true, true));
        stream.expect_another_pass(true);
        for tensor in [0, 1, 2, 3, 0, 1, 2, 3] {
            check(&*stream.tensor(tensor).unwrap(), tensor);
        }
        assert_eq!((stream.figures().not_held, source.held().len()), (8, 0), "{limit}");
        drop((taken, stream));
        assert_eq!(budget.used(), 0);
    }
}

#[test]
fn requests_out_of_order_are_served_and_forgotten() {
    let source = Arc::new(Recorder::new(12, 2));
    let (budget, order) = (Budget::new(1 << 20), [0, 1, 2, 3, 4, 5, 6, 7]);
    let stream = stream(&source, &order, &budget, options(1, true, false));
    settle(|| source.held().len() == 4);
    // Experts, a matrix that serves twice, and neighbours that change places.
    for tensor in [9, 8, 7, 1, 0, 11, 3, 2, 9] {
        check(&*stream.tensor(tensor).unwrap(), tensor);
    }
    settle(|| source.held().len() == 11);
    let mut held = source.held();
    held.sort_unstable();
    assert_eq!(held, [0, 1, 2, 3, 4, 5, 7, 8, 9, 9, 11], "nothing read ahead was lost");
    // Two steps from another place, and the reader follows.
    for tensor in [6, 7] {
        check(&*stream.tensor(tensor).unwrap(), tensor);
    }
    assert!(budget.used() <= 2 * SIZE);
    stream.expect_another_pass(true);
    settle(|| source.held()[11..].ends_with(&[0, 1]));
    assert_eq!(stream.figures().not_held, 0);
}

#[test]
fn failures_ahead_reach_whoever_asks_and_can_be_tried_again() {
    for caching in [false, true] {
        let source = Arc::new(Recorder::new(4, 1));
        source.failing.lock().unwrap().push(1);
        let budget = Budget::new(1 << 20);
        let stream = stream(&source, &[0, 1, 2, 3], &budget, options(0, true, caching));
        settle(|| source.held().len() == 4);
        check(&*stream.tensor(0).unwrap(), 0);
        let e = stream.tensor(1).err().unwrap();
        assert!(matches!(e, Error::Input(_)) && e.to_string().contains("\"t1\""), "{e}");
        for tensor in [1, 2, 3, 1] {
            check(&*stream.tensor(tensor).unwrap(), tensor);
        }
        assert!(stream.tensor(4).is_err());
        assert_eq!(stream.figures().bytes_read, if caching { 4 } else { 5 } * SIZE);
    }
}

#[test]
fn a_reader_that_panics_leaves_a_stream_that_works() {
    let mut recorder = Recorder::new(4, 1);
    recorder.panics_at = Some(2);
    let source = Arc::new(recorder);
    let stream = stream(&source, &[0, 1, 2, 3], &Budget::new(1 << 20), options(0, true, false));
    settle(|| source.held().len() == 3);
    for tensor in [0, 1, 3] {
        check(&*stream.tensor(tensor).unwrap(), tensor);
    }
}

#[test]
fn many_threads_share_one_reading() {
    let source = Arc::new(Recorder::new(40, 4));
    let budget = Budget::new(room_for(12));
    let order: Vec<usize> = (0..40).collect();
    let stream = stream(&source, &order, &budget, options(2, true, false));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for pass in 0..5 {
                    stream.expect_another_pass(pass < 4);
                    for &tensor in &order {
                        check(&*stream.tensor(tensor).unwrap(), tensor);
                    }
                }
            });
        }
    });
    drop(stream);
    assert!(budget.used() == 0 && budget.peak() <= 12 * SIZE);
}

#[test]
fn a_dropped_stream_stops_its_reader() {
    let source = Arc::new(Recorder::new(100, 1));
    let budget = Budget::new(room_for(4));
    let others: Reservation = budget.reserve(SIZE, "other things").unwrap();
    let order: Vec<usize> = (0..100).collect();
    for _ in 0..20 {
        let stream = stream(&source, &order, &budget, StreamOptions::default());
        drop(stream.tensor(0).unwrap());
        drop(stream);
        assert_eq!(budget.used(), SIZE);
    }
    drop(others);
}
