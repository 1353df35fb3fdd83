//! How many weights a second tiles are decoded to, on one core, by every kernel there is here, beside the bare entropy decoder
//! and the copying of as many f32.

#[path = "../crates/lsb-quant/tests/harness/mod.rs"]
#[allow(dead_code)]
mod harness;

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use lsb_benches::{bell_symbols, f32_bytes, normal_weights};
use lsb_format::entropy::{SingleTable, Table, decode_run, encode_run};
use lsb_format::{DType, TILE_WEIGHTS};
use lsb_quant::{Isa, MatrixInfo, Registry};
use std::hint::black_box;

const N: usize = 16 * TILE_WEIGHTS as usize;
const COLS: usize = 2048;

type Group<'a> = BenchmarkGroup<'a, criterion::measurement::WallTime>;

/// Weights whose rows and columns differ in size, as those of models do.
fn weights() -> Vec<f32> {
    let (mut weights, rows) = (normal_weights(7, N, 1.0), normal_weights(8, N / COLS, 0.4));
    let cols = normal_weights(9, COLS, 0.4);
    for (row, r) in weights.chunks_mut(COLS).zip(&rows) {
        row.iter_mut().zip(&cols).for_each(|(w, c)| *w *= (r + c).exp());
    }
    weights
}

fn codec(group: &mut Group<'_>, text: &str, weights: &[f32]) {
    let bytes = f32_bytes(weights);
    let codec = &*Registry::standard().parse(text).expect("a codec of this crate");
    let matrix = MatrixInfo { rows: (N / COLS) as u64, cols: COLS as u64, dtype: DType::F32 };
    let statistics = harness::survey(codec, &matrix, &bytes, 8).expect("finite weights");
    let encoded = harness::encode_surveyed(codec, &matrix, &bytes, &statistics, 8).expect("finite weights");
    let mut expected = Vec::new();
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        isa.choose();
        let decode = || harness::decode(codec, &matrix, &encoded, usize::MAX).expect("what was encoded");
        let bits: Vec<u32> = decode().iter().map(|x| x.to_bits()).collect();
        assert!(expected.is_empty() || bits == expected, "{text}: {} differs", isa.name());
        expected = bits;
        group.bench_function(format!("{text}/{}", isa.name()), |b| b.iter(|| black_box(decode())));
    }
}

fn tiles(c: &mut Criterion) {
    let weights = weights();
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(N as u64));
    for text in ["trellis:bpw=2", "trellis:bpw=3", "outlier-binary", "ternary", "rtn:bits=4"] {
        codec(&mut group, text, &weights);
    }

    let symbols = bell_symbols(1, N, 2.0);
    let mut counts = [0u64; 256];
    symbols.iter().for_each(|&s| counts[usize::from(s)] += 1);
    let table = Table::from_counts(&counts).expect("there are symbols");
    let mut coded = Vec::new();
    encode_run(&symbols, &[&table], |_| 0, &mut coded).expect("all symbols are in the table");
    let (decoder, mut back) = ([table.decoder()], vec![0; N]);
    group.bench_function("rans/scalar", |b| {
        b.iter(|| decode_run(black_box(&coded), &decoder, &mut SingleTable, &mut back).is_ok());
    });
    let mut copy = vec![0.0; N];
    group.bench_function("copy f32", |b| b.iter(|| copy.copy_from_slice(black_box(&weights))));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(std::time::Duration::from_millis(200))
        .measurement_time(std::time::Duration::from_millis(1000));
    targets = tiles
}
criterion_main!(benches);
