//! What calibration costs outside the search: second moments, their factor, and error feedback, beside matrix products of the
//! same sizes on the same threads.

use candle_core::{Device, Tensor};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use lsb_benches::{bf16_bytes, normal_weights};
use lsb_format::DType;
use lsb_model::products;
use lsb_quant::calibrate::{Calibration, DenseMoments, UpperFactor};
use lsb_quant::{EncodedTile, MatrixInfo, Registry, Span, Statistics};
use std::hint::black_box;
use std::sync::Arc;

/// Inputs of a map, or of a block of them.
const INPUTS: usize = 2048;
/// Tokens that are taken in at once.
const TOKENS: usize = 1024;
/// Rows of a map.
const ROWS: usize = 512;

fn tensor(seed: u64, rows: usize, cols: usize) -> Tensor {
    Tensor::from_vec(normal_weights(seed, rows * cols, 1.0), (rows, cols), &Device::Cpu).expect("a matrix")
}

/// The whole square counts, of which symmetry spares nearly a half.
fn moments(c: &mut Criterion) {
    let x = tensor(1, TOKENS, INPUTS);
    let mut sums = vec![0.0; INPUTS * INPUTS];
    let mut group = c.benchmark_group("second moments");
    group.throughput(Throughput::Elements((TOKENS * INPUTS * INPUTS) as u64));
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.bench_function("ours", |b| b.iter(|| products::add_products(&x, &mut sums).expect("sums")));
    let turned = x.t().and_then(|t| t.contiguous()).expect("a matrix");
    group.bench_function("matmul", |b| b.iter(|| black_box(turned.matmul(&x).expect("a product"))));
    group.finish();
}

/// Multiplications: a sixth of a cube for the factor, another for its inverse.
fn factor(c: &mut Criterion) {
    let x = tensor(2, 2 * INPUTS, INPUTS);
    let mut h = vec![0.0; INPUTS * INPUTS];
    products::add_products(&x, &mut h).expect("sums");
    products::mirror(&mut h, INPUTS);
    let mut group = c.benchmark_group("factorization");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements((INPUTS * INPUTS * INPUTS / 3) as u64));
    group.bench_function("ours", |b| b.iter(|| black_box(UpperFactor::new(&h, INPUTS, 0.01))));
    let square = tensor(3, INPUTS, INPUTS).to_dtype(candle_core::DType::F64).expect("a matrix");
    group.throughput(Throughput::Elements((INPUTS * INPUTS * INPUTS) as u64));
    group.bench_function("matmul of f64", |b| {
        b.iter(|| black_box(square.matmul(&square).expect("a product")))
    });
    group.finish();
}

/// Codes of rows with errors fed back. Without refits it is half a product of the weights with a square matrix.
fn feedback(c: &mut Criterion) {
    let x = tensor(4, 2 * INPUTS, INPUTS);
    let mut h = vec![0.0; INPUTS * INPUTS];
    products::add_products(&x, &mut h).expect("sums");
    products::mirror(&mut h, INPUTS);
    let matrix = MatrixInfo { rows: ROWS as u64, cols: INPUTS as u64, dtype: DType::BF16 };
    let bytes = bf16_bytes(&normal_weights(5, ROWS * INPUTS, 0.02));
    let calibration =
        Calibration { inputs: Arc::new(DenseMoments::new(h, INPUTS)), outputs: None, relative: false };
    let mut statistics = Statistics::default();
    statistics.calibration = Some(calibration);
    let mut group = c.benchmark_group("feedback");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements((ROWS * INPUTS * INPUTS / 2) as u64));
    for text in ["gptq:bits=3,mse=false", "gptq:3"] {
        let codec = &*Registry::standard().parse(text).expect("a codec");
        let tiling = codec.tiling(&matrix).expect("tiles");
        let span = Span::new(matrix, tiling, 0..tiling.len(), &bytes);
        let mut encoder = codec.encoder(&matrix, &statistics).expect("moments with a factor");
        group.bench_function(text, |b| {
            b.iter(|| {
                let mut tiles = vec![EncodedTile::default(); span.len()];
                encoder.encode(&span, &mut tiles).expect("finite weights");
                black_box(tiles)
            });
        });
    }
    let (weights, square) = (tensor(6, ROWS, INPUTS), tensor(7, INPUTS, INPUTS));
    group.throughput(Throughput::Elements((ROWS * INPUTS * INPUTS) as u64));
    group.bench_function("matmul", |b| b.iter(|| black_box(weights.matmul(&square).expect("a product"))));
    group.finish();
}

criterion_group!(benches, moments, factor, feedback);
criterion_main!(benches);
