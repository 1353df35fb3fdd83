//! The rates and errors the lossy codecs promise on independent Gaussian weights.

#[allow(dead_code)]
mod harness;

use lsb_format::DType;
use lsb_quant::{MatrixInfo, Registry};

/// Codec, most bits per weight with all records, largest mean squared error per variance.
const PROMISES: &[(&str, f64, f64)] = &[
    ("outlier-binary", 1.28, 0.2905),
    ("outlier-binary:outlier_ratio=0.02,error_compensation=false", 1.275, 0.2908),
    ("residual-binary:1", 1.005, 0.364),
    ("residual-binary:2", 2.01, 0.1180),
    ("residual-binary:3", 3.015, 0.0371),
    ("residual-binary:4", 4.02, 0.01145),
    ("residual-binary:8", 8.04, 0.000090),
    ("ternary", 1.605, 0.1906),
    // 19.6 dB would be 0.01096.
    ("rtn:4", 4.19, 0.00875),
    ("rtn:bits=4,symmetric=true", 4.13, 0.00995),
];

#[test]
fn gaussian_weights_cost_and_lose_what_is_promised() {
    let matrix = MatrixInfo { rows: 512, cols: 4096, dtype: DType::BF16 };
    let bytes = harness::bytes_of(DType::BF16, &harness::gaussian(1, 512 * 4096));
    for &(name, most_bits, most_error) in PROMISES {
        let codec = Registry::standard().parse(name).unwrap();
        let (bits, d) = harness::rate_and_distortion(&*codec, &matrix, &bytes).unwrap();
        assert!(bits <= most_bits, "{name}: {bits} bits per weight");
        assert!(d.relative_mse() <= most_error, "{name}: error {}", d.relative_mse());
    }
}

/// Planes refined together are not best alone; the factors that parts carry keep most of what is lost.
#[test]
fn fewer_planes_are_close_to_planes_made_for_that_number() {
    let matrix = MatrixInfo { rows: 64, cols: 4096, dtype: DType::F32 };
    let weights = harness::gaussian(2, 64 * 4096);
    let bytes = harness::bytes_of(DType::F32, &weights);
    let error = |planes: usize, parts: usize| {
        let codec = Registry::standard().parse(&format!("residual-binary:{planes}")).unwrap();
        let encoded = harness::encode(&*codec, &matrix, &bytes, 1).unwrap();
        let back = harness::decode(&*codec, &matrix, &encoded, parts).unwrap();
        lsb_quant::Distortion::measure(&weights, &back).relative_mse()
    };
    for planes in 2..=4 {
        for parts in 1..planes {
            let (cut, own) = (error(planes, parts), error(parts, parts));
            assert!(cut < 1.25 * own, "{parts} of {planes} planes leave {cut}, {parts} of {parts} {own}");
            println!("{parts} of {planes} planes: {cut:.5}, alone {own:.5}");
        }
    }
}
