//! What judging costs per logit beside the matrix product that makes it.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lsb_validate::logits::{LogitTally, PairTally, ReferenceTally, TopTally};
use std::hint::black_box;

const TOKENS: usize = 128;
const VOCABULARY: usize = 32_000;
const TILE: usize = 2_000;

/// Tiles of `TOKENS` x `TILE` logits, spread as those of language models.
fn tiles(seed: u64) -> Vec<Vec<f32>> {
    let mut state = seed;
    let mut uniform = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let mut tile = || (0..TOKENS * TILE).map(|_| 8.0 * (uniform() + uniform() + uniform())).collect();
    (0..VOCABULARY / TILE).map(|_| tile()).collect()
}

fn tallies(c: &mut Criterion) {
    let (a, b) = (tiles(1), tiles(2));
    let targets = vec![17; TOKENS];
    let mut top = TopTally::new(targets.clone(), 64, VOCABULARY);
    a.iter().enumerate().for_each(|(i, tile)| top.observe(0..TOKENS, i * TILE, tile));
    let rows = top.finish().expect("finite logits");
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread");
    let mut group = c.benchmark_group("logits");
    // Per logit, and per pair of logits for `pair`.
    group.throughput(Throughput::Elements((TOKENS * VOCABULARY) as u64)).sample_size(10);
    group.bench_function("one", |bench| {
        bench.iter(|| {
            one_thread.install(|| {
                let mut tally = LogitTally::new(targets.clone());
                a.iter().enumerate().for_each(|(i, a)| tally.observe(0..TOKENS, i * TILE, a));
                black_box(tally.finish())
            })
        });
    });
    group.bench_function("pair", |bench| {
        bench.iter(|| {
            one_thread.install(|| {
                let mut tally = PairTally::new(targets.clone());
                let pairs = a.iter().zip(&b).enumerate();
                pairs.for_each(|(i, (a, b))| tally.observe(0..TOKENS, i * TILE, a, b));
                black_box(tally.finish())
            })
        });
    });
    group.bench_function("top-64", |bench| {
        bench.iter(|| {
            one_thread.install(|| {
                let mut tally = TopTally::new(targets.clone(), 64, VOCABULARY);
                a.iter().enumerate().for_each(|(i, a)| tally.observe(0..TOKENS, i * TILE, a));
                black_box(tally.finish().is_ok())
            })
        });
    });
    group.bench_function("against a reference", |bench| {
        bench.iter(|| {
            one_thread.install(|| {
                let mut tally = ReferenceTally::new(&rows, 0, targets.clone());
                b.iter().enumerate().for_each(|(i, b)| tally.observe(0..TOKENS, i * TILE, b));
                black_box(tally.finish())
            })
        });
    });
    group.finish();
}

criterion_group!(benches, tallies);
criterion_main!(benches);
