//! What memory and arithmetic give at the most: reading, copying, and products of dense matrices.

use crate::measure::whole;
use crate::{Bench, Figure, Limit, Outcome, Yardstick};
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

/// Bytes read or copied: more than caches hold.
const BYTES: usize = 768 << 20;

/// Reads all of `words` once, on the threads of the pool it is called on.
pub(crate) fn read(words: &[u64]) -> u64 {
    let part = words.len().div_ceil(rayon::current_num_threads()).next_multiple_of(64);
    let sum = |words: &[u64]| {
        // Independent sums, so that adding does not wait for itself.
        let mut sums = [0u64; 64];
        for chunk in words.as_chunks::<64>().0 {
            sums.iter_mut().zip(chunk).for_each(|(s, w)| *s = s.wrapping_add(*w));
        }
        sums.iter().fold(0u64, |a, b| a.wrapping_add(*b))
    };
    words.par_chunks(part).map(sum).reduce(|| 0, u64::wrapping_add)
}

/// `BYTES` that were written once.
pub(crate) fn words() -> Vec<u64> {
    (0..(BYTES / 8) as u64).collect()
}

pub(crate) fn measure(bench: &mut Bench) -> Outcome {
    limits(bench);
    gemm(bench)
}

fn limits(bench: &mut Bench) {
    let names = ["memory read", "memory copy"];
    if !names.iter().any(|name| bench.wants(name)) {
        return;
    }
    let protocol = "Sum of 768 MB of 64-bit words, each thread over its part; copying half of that to the other half, bytes read and \
                    bytes written counted.";
    let mut words = words();
    let rate = |seconds: f64| Figure::new(BYTES as f64 / seconds / 1e9, "GB/s");
    let seconds = bench.effort.time(whole(|| bench.one.install(|| read(&words))));
    bench.table_row("memory read, 1 thread", rate(seconds), protocol);
    let threads = bench.threads();
    if threads > 1 {
        let seconds = bench.effort.time(whole(|| bench.all.install(|| read(&words))));
        bench.table_row(&format!("memory read, {threads} threads"), rate(seconds), protocol);
    }
    let (from, to) = words.split_at_mut(BYTES / 16);
    let seconds = bench.effort.time(whole(|| to.copy_from_slice(from)));
    bench.table_row("memory copy, 1 thread", rate(seconds), protocol);
}

/// A matrix of small different values.
pub(crate) fn dense(rows: usize, cols: usize, dtype: DType) -> candle_core::Result<Tensor> {
    let values = lsb_benches::normal_weights(11, rows * cols, 1.0);
    Tensor::from_vec(values, (rows, cols), &Device::Cpu)?.to_dtype(dtype)
}

fn gemm(bench: &mut Bench) -> Outcome {
    let protocol =
        "Product of two square matrices of 2048 by the library that forward passes use (crate `gemm`).";
    let n = 2048;
    for (name, dtype) in [("f32", DType::F32), ("f64", DType::F64)] {
        let name = format!("{name} matrix product, 1 thread");
        if !bench.wants(&name) {
            continue;
        }
        let (a, b) = (dense(n, n, dtype)?, dense(n, n, dtype)?);
        let seconds = bench.effort.time(whole(|| bench.one.install(|| a.matmul(&b).is_ok())));
        bench.table_row(&name, Figure::new(2.0 * (n as f64).powi(3) / seconds / 1e9, "GFLOP/s"), protocol);
    }
    Ok(())
}

impl Bench {
    /// A row that is a yardstick itself.
    fn table_row(&mut self, stage: &str, ours: Figure, protocol: &str) {
        self.row(stage, ours, Yardstick::None, Limit::None, protocol);
    }
}
