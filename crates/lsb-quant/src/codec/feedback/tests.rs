//! What feedback promises, whatever the codec.

use super::layers::{Coded, code, layer, matrix, output_error};
use super::*;
use crate::calibrate::{Calibration, DenseMoments};
use lsb_format::DType;
use std::sync::Arc;

/// Every codec that feeds errors back through this module.
const CODECS: &[&str] = &[
    "gptq:3",
    "gptq:bits=2,group=16,symmetric=true",
    "gptq:bits=4,act_order=false,mse=false,damping=0.1",
    "outlier-binary",
    "outlier-binary:outlier_ratio=0.05,group=64,outlier_bits=8",
    "outlier-binary:outlier_ratio=0,error_compensation=false",
    "residual-binary:1",
    "residual-binary:planes=3,group=64",
];

const SIZE: (usize, usize) = (70, 200);

/// Seven levels, evenly spaced around zero.
struct Seven;

impl Levels for Seven {
    type Group = f32;

    fn numbers(&self) -> usize {
        1
    }

    fn code(&self, group: &f32, _row: usize, _col: usize, target: f32) -> (u8, f32) {
        let q = (target / group).round().clamp(-3.0, 3.0);
        ((q + 3.0) as u8, q * group)
    }

    fn value(&self, group: &f32, code: u8) -> Option<f32> {
        Some((f32::from(code) - 3.0) * group)
    }

    fn directions(&self, code: u8) -> PerNumber<f32> {
        let mut out = [0.0; NUMBERS];
        out[0] = f32::from(code) - 3.0;
        out
    }

    fn moved(&self, group: &f32, change: &PerNumber<f64>) -> f32 {
        (f64::from(*group) + change[0]) as f32
    }
}

fn known(h: &[f32], limit: usize) -> KnownInputs {
    let matrix = matrix(SIZE, DType::F32);
    let moments = DenseMoments::new(h.to_vec(), SIZE.1).with_block_limit(limit);
    let calibration = Calibration { inputs: Arc::new(moments), outputs: None, relative: false };
    let statistics = Statistics { calibration: Some(calibration), ..Statistics::default() };
    let tiling = Tiling::standard(matrix.rows, matrix.cols).unwrap();
    KnownInputs::new("test", &matrix, &tiling, &statistics, 0.01, ColumnOrder::Falling).unwrap().unwrap()
}

#[test]
fn the_sum_of_squared_errors_is_the_error_of_the_outputs() {
    let (h, weights) = layer(SIZE.0, SIZE.1);
    for limit in [usize::MAX, 60] {
        let inputs = known(&h, limit);
        assert_eq!(inputs.factor.blocks().count(), if limit == 60 { 4 } else { 1 });
        // Blocks know nothing of each other.
        let mut seen = vec![0.0; h.len()];
        for block in inputs.factor.blocks() {
            let columns = &inputs.factor.order()[block];
            for &i in columns {
                columns.iter().for_each(|&j| seen[i * SIZE.1 + j] = h[i * SIZE.1 + j]);
            }
        }
        let mut last = f64::INFINITY;
        for refits in [Refits::Never, Refits::BeforeCodes, Refits::AfterCodes] {
            let groups = vec![0.7; SIZE.0 * SIZE.1.div_ceil(64)];
            let found = quantize(&Seven, &inputs, &weights, 64, groups, refits);
            let loss: f64 = found.losses.iter().sum();
            let direct = output_error(&weights, &found.values, &seen, 0.01);
            assert!((loss / direct - 1.0).abs() < 1e-5, "{refits:?}: {loss} against {direct}");
            assert!(loss < last, "{refits:?}: {loss} after {last}");
            last = loss;
        }
    }
}

#[test]
fn fitted_numbers_are_those_of_least_squares() {
    // One group a row, one number: the best one has a closed form.
    let (h, weights) = layer(SIZE.0, SIZE.1);
    let inputs = known(&h, usize::MAX);
    let found = quantize(&Seven, &inputs, &weights, SIZE.1, vec![0.7; SIZE.0], Refits::AfterCodes);
    let zero = vec![0.0; SIZE.1];
    let square = |x: &[f32]| output_error(x, &zero, &h, 0.01);
    for (row, (w, codes)) in weights.chunks(SIZE.1).zip(found.codes.chunks(SIZE.1)).enumerate() {
        let levels: Vec<f32> = codes.iter().map(|&c| f32::from(c) - 3.0).collect();
        let sum: Vec<f32> = w.iter().zip(&levels).map(|(a, b)| a + b).collect();
        let product = 0.5 * (square(&sum) - square(w) - square(&levels));
        let (best, got) = (product / square(&levels), f64::from(found.groups[row]));
        assert!((got / best - 1.0).abs() < 1e-3, "row {row}: {got}, best is {best}");
    }
}

/// Inputs `x` of a map and drifted ones `x'`, 2000 of each.
fn drifted(cols: usize) -> [Vec<f32>; 2] {
    let noise = super::layers::gaussian(31, 2000 * (2 * cols + 1));
    let (mut original, mut seen) = (Vec::new(), Vec::new());
    for z in noise.chunks(2 * cols + 1) {
        let x: Vec<f32> = (0..cols).map(|i| z[i] + 0.8 * z[2 * cols]).collect();
        // What is lost of one input is partly to be had from its neighbour.
        seen.extend((0..cols).map(|i| 0.7 * x[i] + 0.3 * x[(i + 1) % cols] + 0.1 * z[cols + i]));
        original.extend(x);
    }
    [original, seen]
}

fn mean_products(a: &[f32], b: &[f32], cols: usize) -> Vec<f32> {
    let mut out = vec![0.0f64; cols * cols];
    for (a, b) in a.chunks(cols).zip(b.chunks(cols)) {
        for (i, &a) in a.iter().enumerate() {
            out[i * cols..(i + 1) * cols]
                .iter_mut()
                .zip(b)
                .for_each(|(o, &b)| *o += f64::from(a) * f64::from(b));
        }
    }
    out.iter().map(|&x| (x / (a.len() / cols) as f64) as f32).collect()
}

#[test]
fn weights_make_up_for_drifted_inputs() {
    let (rows, cols) = (40, 96);
    let [original, seen] = drifted(cols);
    let apart: Vec<f32> = original.iter().zip(&seen).map(|(x, y)| x - y).collect();
    let (h, d) = (mean_products(&seen, &seen, cols), mean_products(&apart, &seen, cols));
    let weights = super::layers::gaussian(32, rows * cols);

    // Changed weights solve (W' - W) (H + damping) = W D, block by block.
    for limit in [usize::MAX, 40] {
        let moments = DenseMoments::new(h.clone(), cols).with_block_limit(limit).with_drift(d.clone());
        let factor = crate::calibrate::InputFactor::new(&moments, 0.01, ColumnOrder::Falling).unwrap();
        let changed = super::columns(&factor, &weights);
        let stride = super::stride(rows);
        let mean = (0..cols).map(|i| f64::from(h[i * cols + i])).sum::<f64>() / cols as f64;
        let (mut apart_by, mut in_all) = (0.0, 0.0);
        for block in factor.blocks() {
            let places: Vec<(usize, usize)> = block.clone().map(|p| (p, factor.order()[p])).collect();
            for r in 0..rows {
                for &(_, j) in &places {
                    let sum =
                        |f: &dyn Fn(usize, usize) -> f64| places.iter().map(|&(p, c)| f(p, c)).sum::<f64>();
                    let w = |c: usize| f64::from(weights[r * cols + c]);
                    let left = sum(&|p, c| {
                        let damped = f64::from(h[c * cols + j]) + if c == j { 0.01 * mean } else { 0.0 };
                        (f64::from(changed[p * stride + r]) - w(c)) * damped
                    });
                    let right = sum(&|_, c| w(c) * f64::from(d[c * cols + j]));
                    apart_by += (left - right).powi(2);
                    in_all += right.powi(2);
                }
            }
        }
        // Changes are kept to 8 bits.
        assert!(apart_by < 1e-3 * in_all, "{apart_by} of {in_all}");
    }

    // The outputs of what is coded are nearer to those of the original.
    let error = |text: &str, drift: bool| {
        let mut moments = DenseMoments::new(h.clone(), cols);
        if drift {
            moments = moments.with_drift(d.clone());
        }
        let back = code(text, &matrix((rows, cols), DType::F32), &weights, Some(moments)).unwrap().back;
        let output = |w: &[f32], x: &[f32]| -> f64 {
            w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum()
        };
        let pairs = original.chunks(cols).zip(seen.chunks(cols)).take(300);
        let squares = pairs.flat_map(|(x, y)| {
            weights
                .chunks(cols)
                .zip(back.chunks(cols))
                .map(move |(w, q)| (output(w, x) - output(q, y)).powi(2))
        });
        squares.sum::<f64>()
    };
    for text in ["gptq:4", "trellis:bpw=4,states=8", "residual-binary:3"] {
        let (with, without) = (error(text, true), error(text, false));
        assert!(with < 0.5 * without, "{text}: {with} against {without}");
    }
}

#[test]
fn bytes_depend_neither_on_threads_nor_on_how_rows_are_cut() {
    let (rows, cols) = (2800, 200);
    let (h, weights) = layer(rows, cols);
    let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
    let (one, three) = (pool(1), pool(3));
    let of = |text: &str, dtype, weights: &[f32]| {
        let moments = DenseMoments::new(h.clone(), cols);
        code(text, &matrix((weights.len() / cols, cols), dtype), weights, Some(moments)).unwrap()
    };
    for text in ["gptq:3", "outlier-binary", "residual-binary:2"] {
        let alone = one.install(|| of(text, DType::BF16, &weights));
        assert!(alone.tiles.len() > 2);
        assert_eq!(three.install(|| of(text, DType::BF16, &weights)), alone, "{text}");
    }
    // A row by itself comes out as among others.
    let many = of("gptq:3", DType::F32, &weights[..40 * cols]).back;
    assert_eq!(of("gptq:3", DType::F32, &weights[7 * cols..8 * cols]).back, many[7 * cols..8 * cols]);
}

#[test]
fn known_inputs_improve_the_outputs_of_the_binary_codecs() {
    let (h, weights) = layer(128, 384);
    for (text, error, bytes) in [
        ("outlier-binary", 0.75, 1.05),
        ("outlier-binary:outlier_ratio=0.05,group=64", 0.75, 1.06),
        ("outlier-binary:outlier_ratio=0.02,outlier_bits=8,error_compensation=false", 0.75, 1.05),
        ("residual-binary:1", 0.75, 1.0),
        ("residual-binary:2", 0.65, 1.0),
        ("residual-binary:planes=4,group=64", 0.6, 1.0),
    ] {
        for dtype in [DType::F32, DType::BF16] {
            let of = |moments| code(text, &matrix((128, 384), dtype), &weights, moments).unwrap();
            let (plain, fed) = (of(None), of(Some(DenseMoments::new(h.clone(), 384))));
            let loss = |c: &Coded| output_error(&weights, &c.back, &h, 0.01);
            let (share, size) = (loss(&fed) / loss(&plain), fed.bytes() as f64 / plain.bytes() as f64);
            assert!(share < error, "{text} {dtype}: {share} of the error");
            assert!(size <= bytes, "{text} {dtype}: {size} times the bytes");
        }
    }
}

#[test]
fn starved_inputs_are_coded_and_unusable_ones_refused() {
    let (h, weights) = layer(SIZE.0, SIZE.1);
    let n = SIZE.1;
    let mut dead = h.clone();
    for i in 0..n {
        (dead[5 * n + i], dead[i * n + 5]) = (0.0, 0.0);
    }
    // The same input for every column, two samples, inputs of extreme sizes.
    let constant = vec![1.0f32; n * n];
    let outer = |i: usize, m: usize| ((i / n % m) * (i % n % m)) as f32;
    let two: Vec<f32> = (0..n * n).map(|i| outer(i, 3) + outer(i, 7)).collect();
    let scaled = |by: f32| -> Vec<f32> { h.iter().map(|x| x * by).collect() };
    let extremes: Vec<f32> = weights.iter().enumerate().map(|(i, w)| w * [1e-30, 1.0, 1e30][i % 3]).collect();
    for text in CODECS {
        for h in [&dead, &constant, &two, &scaled(1e-30), &scaled(1e30)] {
            for weights in [&weights, &extremes, &vec![0.0; weights.len()]] {
                let moments = DenseMoments::new(h.clone(), n);
                let coded = code(text, &matrix(SIZE, DType::BF16), weights, Some(moments)).unwrap();
                assert!(coded.back.iter().all(|x| x.is_finite()), "{text}");
            }
        }
        let refused = |h: Vec<f32>, n: usize, weights: &[f32]| {
            let moments = DenseMoments::new(h, n);
            code(text, &matrix(SIZE, DType::F32), weights, Some(moments)).unwrap_err()
        };
        let mut bad = h.clone();
        (bad[3 * n + 9], bad[9 * n + 3]) = (f32::NAN, f32::NAN);
        assert!(refused(bad, n, &weights).to_string().contains("finite"), "{text}");
        let message = refused(vec![1.0], 1, &weights).to_string();
        assert!(message.contains("1 inputs are known of a map of 200"), "{message}");
        let mut bad = weights.clone();
        bad[203] = f32::INFINITY;
        let expected = Error::NonFinite { index: 203, value: f32::INFINITY };
        assert_eq!(refused(h.clone(), n, &bad), expected, "{text}");
    }
}
