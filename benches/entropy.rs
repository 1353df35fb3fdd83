//! How many symbols, positions and weights a second pass through the entropy coder, on one core.
//!
//! Every result is checked before it is timed.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lsb_benches::{bell_symbols, bf16_bytes, f32_bytes, normal_weights, positions};
use lsb_format::entropy::{SingleTable, Table, decode_positions, decode_run, encode_positions, encode_run};
use lsb_format::{DType, TILE_WEIGHTS, bits};
use lsb_quant::{EncodedTile, MatrixInfo, Registry, Span, Statistics};
use std::hint::black_box;

const N: usize = TILE_WEIGHTS as usize;

/// Symbols of one tile at about 3 bits each.
fn symbols(c: &mut Criterion) {
    let symbols = bell_symbols(1, N, 2.0);
    let mut counts = [0u64; 256];
    symbols.iter().for_each(|&s| counts[usize::from(s)] += 1);
    let table = Table::from_counts(&counts).expect("there are symbols");
    let mut coded = Vec::new();
    encode_run(&symbols, &[&table], |_| 0, &mut coded).expect("all symbols are in the table");
    let decoder = [table.decoder()];
    let mut back = vec![0; N];
    decode_run(&coded, &decoder, &mut SingleTable, &mut back).expect("a run just encoded");
    assert!(back == symbols);

    let mut group = c.benchmark_group("rans");
    group.throughput(Throughput::Elements(N as u64));
    group.bench_function("encode", |b| {
        let mut out = Vec::new();
        b.iter(|| {
            out.clear();
            encode_run(black_box(&symbols), &[&table], |_| 0, &mut out).is_ok()
        });
    });
    group.bench_function("decode", |b| {
        b.iter(|| decode_run(black_box(&coded), &decoder, &mut SingleTable, &mut back).is_ok());
    });
    group.bench_function("table_from_counts", |b| b.iter(|| Table::from_counts(black_box(&counts))));
    group.finish();
}

/// Positions of 2 % of the weights of one tile.
fn outliers(c: &mut Criterion) {
    let list = positions(2, N as u32, 0.02);
    let mut coded = Vec::new();
    encode_positions(&list, N as u32, &mut coded).expect("positions increase");
    let mut back = Vec::new();
    decode_positions(&coded, N as u32, list.len(), &mut back).expect("positions just encoded");
    assert!(back == list);

    let mut group = c.benchmark_group("positions");
    group.throughput(Throughput::Elements(list.len() as u64));
    group.bench_function("encode", |b| {
        let mut out = Vec::new();
        b.iter(|| {
            out.clear();
            encode_positions(black_box(&list), N as u32, &mut out).is_ok()
        });
    });
    group.bench_function("decode", |b| {
        b.iter(|| decode_positions(black_box(&coded), N as u32, list.len(), &mut back).is_ok());
    });
    group.finish();
}

/// Packed integers of one tile.
fn packing(c: &mut Criterion) {
    let weights = normal_weights(3, N, 1.0);
    let four: Vec<u8> = bell_symbols(4, N, 2.0).iter().map(|s| s & 15).collect();
    let trits: Vec<u8> = four.iter().map(|s| s % 3).collect();
    let (mut packed, mut five) = (Vec::new(), Vec::new());
    bits::pack(&four, 4, &mut packed);
    bits::pack_trits(&trits, &mut five);
    let mut back = vec![0; N];
    bits::unpack_bytes(&packed, 4, &mut back).expect("values just packed");
    assert!(back == four);
    bits::unpack_trits(&five, &mut back).expect("digits just packed");
    assert!(back == trits);

    let mut group = c.benchmark_group("bits");
    group.throughput(Throughput::Elements(N as u64));
    let mut out = Vec::new();
    group.bench_function("pack_4", |b| {
        b.iter(|| {
            out.clear();
            bits::pack(black_box(&four), 4, &mut out);
        });
    });
    group.bench_function("unpack_4", |b| {
        b.iter(|| bits::unpack_bytes(black_box(&packed), 4, &mut back).is_ok());
    });
    group.bench_function("pack_trits", |b| {
        b.iter(|| {
            out.clear();
            bits::pack_trits(black_box(&trits), &mut out);
        });
    });
    group.bench_function("unpack_trits", |b| {
        b.iter(|| bits::unpack_trits(black_box(&five), &mut back).is_ok());
    });
    group.bench_function("pack_signs", |b| {
        b.iter(|| {
            out.clear();
            bits::pack_signs(black_box(&weights), |w| w.is_sign_negative(), &mut out);
        });
    });
    group.finish();
}

/// One tile of normally distributed weights through the `lossless` codec, per source byte.
fn lossless(c: &mut Criterion) {
    let weights = normal_weights(5, N, 0.02);
    let codec = Registry::standard().parse("lossless").expect("a codec of this crate");
    for (dtype, bytes) in [(DType::BF16, bf16_bytes(&weights)), (DType::F32, f32_bytes(&weights))] {
        let matrix = MatrixInfo { rows: 512, cols: (N / 512) as u64, dtype };
        let tiling = codec.tiling(&matrix).expect("a small matrix");
        let span = Span::new(matrix, tiling, 0..1, &bytes);
        let mut encoder = codec.encoder(&matrix, &Statistics::default()).expect("floats");
        let mut out = [EncodedTile::default()];
        encoder.encode(&span, &mut out).expect("lossless takes any value");
        let coded = out[0].bytes().to_vec();
        let decoder = codec.decoder(&matrix, &[]).expect("no side information");
        let (tile, mut back) = (tiling.tile(0), vec![0; bytes.len()]);
        decoder.decode_exact(&tile, &[&coded], &mut back).expect("a tile just encoded");
        assert!(back == bytes);
        println!("lossless {dtype}: {:.3} bits per weight", coded.len() as f64 * 8.0 / N as f64);

        let mut group = c.benchmark_group(format!("lossless_{dtype}"));
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function("encode", |b| {
            b.iter(|| {
                out[0].clear();
                encoder.encode(black_box(&span), &mut out).is_ok()
            });
        });
        group.bench_function("decode", |b| {
            b.iter(|| decoder.decode_exact(&tile, &[black_box(&coded)], &mut back).is_ok());
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(std::time::Duration::from_millis(200))
        .measurement_time(std::time::Duration::from_millis(800));
    targets = symbols, outliers, packing, lossless
}
criterion_main!(benches);
