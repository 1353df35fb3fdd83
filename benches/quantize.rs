//! How fast are survey, encoding and decoding of each codec on one thread, in bytes of the bf16 source?

#[path = "../crates/lsb-quant/tests/harness/mod.rs"]
#[allow(dead_code)]
mod harness;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lsb_format::DType;
use lsb_quant::{MatrixInfo, Registry};
use std::hint::black_box;

const CODECS: &[&str] = &[
    "outlier-binary",
    "outlier-binary:group=128",
    "ternary",
    "residual-binary:2",
    "residual-binary:4",
    "rtn:4",
    "rtn:8",
];

fn quantize(c: &mut Criterion) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread");
    let matrix = MatrixInfo { rows: 4096, cols: 4096, dtype: DType::BF16 };
    let bytes = harness::bytes_of(DType::BF16, &harness::gaussian(1, 4096 * 4096));
    for text in CODECS {
        let codec = &*Registry::standard().parse(text).expect("a codec");
        let statistics = harness::survey(codec, &matrix, &bytes, 8).expect("finite weights");
        let encode =
            || harness::encode_surveyed(codec, &matrix, &bytes, &statistics, 8).expect("finite weights");
        let encoded = pool.install(encode);
        let decoded = harness::decode(codec, &matrix, &encoded, usize::MAX).expect("a whole package");
        assert!(decoded.iter().all(|w| w.is_finite()));

        let mut group = c.benchmark_group(*text);
        group.throughput(Throughput::Bytes(bytes.len() as u64)).sample_size(10);
        if codec.needs().outlier_ratio.is_some() {
            group.bench_function("survey", |b| {
                b.iter(|| pool.install(|| black_box(harness::survey(codec, &matrix, &bytes, 8))));
            });
        }
        group.bench_function("encode", |b| b.iter(|| pool.install(|| black_box(encode()))));
        group.bench_function("decode", |b| {
            b.iter(|| black_box(harness::decode(codec, &matrix, &encoded, usize::MAX)));
        });
        group.finish();
    }
}

criterion_group!(benches, quantize);
criterion_main!(benches);
