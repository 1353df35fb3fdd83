//! The trellis against the bounds of theory, its own decoder, and damage.

use super::feedback::{FeedbackOptions, Plan};
use super::*;
use crate::calibrate::{Calibration, ColumnOrder, DenseMoments, InputFactor, UpperFactor};
use crate::codec::feedback::layers::{gaussian, layer, output_error};
use crate::{EncodedTile, Registry, RowSample, Span, Surveyor};
use lsb_format::DType;

fn codec(text: &str) -> Trellis {
    let (_, parameters) = Registry::standard().parse_parts(&format!("trellis:{text}")).unwrap();
    Trellis::from_parameters(&parameters).unwrap()
}

/// Bits per weight and weights of a matrix after coding.
fn round_trip(codec: &Trellis, matrix: &MatrixInfo, weights: &[f32]) -> (f64, Vec<f32>) {
    let bytes: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
    let tiling = codec.tiling(matrix).unwrap();
    let span = Span::new(*matrix, tiling, 0..tiling.len(), &bytes);
    let mut surveyor = Surveyor::new(&codec.needs(), matrix, &tiling);
    surveyor.observe(&span).unwrap();
    surveyor.end_pass();
    let mut encoder = codec.encoder(matrix, &surveyor.finish()).unwrap();
    let mut tiles = vec![EncodedTile::default(); span.len()];
    encoder.encode(&span, &mut tiles).unwrap();
    let side = encoder.finish().unwrap();
    let total: usize = tiles.iter().map(|t| t.bytes().len()).sum();
    let back = decode(codec, matrix, &tiles, &side);
    (8.0 * (total + side.len()) as f64 / weights.len() as f64, back)
}

fn decode(codec: &Trellis, matrix: &MatrixInfo, tiles: &[EncodedTile], side: &[u8]) -> Vec<f32> {
    let (decoder, tiling) = (codec.decoder(matrix, side).unwrap(), codec.tiling(matrix).unwrap());
    let mut out = vec![f32::NAN; matrix.weights() as usize];
    for (i, coded) in tiles.iter().enumerate() {
        let tile = tiling.tile(i as u64);
        let mut values = vec![0.0; tile.weights()];
        decoder.decode(&tile, &coded.parts().collect::<Vec<_>>(), &mut values).unwrap();
        for (row, values) in (tile.row..).zip(values.chunks(tile.cols as usize)) {
            out[(row * matrix.cols + tile.col) as usize..][..values.len()].copy_from_slice(values);
        }
    }
    out
}

/// Mean of the squared weights over the mean squared error.
fn signal_to_noise(weights: &[f32], back: &[f32]) -> f64 {
    let error: f64 = weights.iter().zip(back).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    weights.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>() / error
}

#[test]
fn gaussian_weights_come_close_to_the_bound_of_shannon() {
    let matrix = MatrixInfo { rows: 1024, cols: 512, dtype: DType::F32 };
    let weights = gaussian(7, 1024 * 512);
    for (states, most) in [(8, 0.085), (64, 0.056)] {
        for bpw in [1.5, 2.0, 2.5, 3.0, 4.0] {
            let (bits, back) = round_trip(&codec(&format!("bpw={bpw},states={states}")), &matrix, &weights);
            let gap = bits - 0.5 * signal_to_noise(&weights, &back).log2();
            assert!((bits - bpw).abs() < 0.02, "{bits} bits where {bpw} were asked for");
            assert!(gap < most, "{states} states, {bits} bits: {gap} above the bound");
        }
    }
}

#[test]
fn levels_take_no_more_than_their_ideal_code() {
    let size = tile::Size { rows: 512, cols: 512 };
    for deviation in [0.9, 2.0, 9.0] {
        let levels: Vec<[i32; LANES]> = gaussian(2, 512 * 512)
            .as_chunks()
            .0
            .iter()
            .map(|x: &[f32; LANES]| x.map(|x| (x * deviation).round() as i32))
            .collect();
        let classes = classes::Classes::one(512, 512);
        let map = tile::class_map(size, &classes);
        let counts = encode::count(&map, 1, &levels).remove(0);
        let shape = shape::Shape::of_counts(&counts);
        let ideal = shape.cost(&counts) / 8.0;
        let mut bytes = Vec::new();
        tile::encode(&tile::Model { classes, shapes: vec![shape] }, &map, &levels, &mut bytes).unwrap();
        assert!((bytes.len() as f64) < 1.005 * ideal, "{deviation}: {} bytes for {ideal}", bytes.len());
    }
}

#[test]
fn classes_and_escapes_pay_where_rows_and_columns_differ() {
    let (rows, cols) = (512, 512);
    let matrix = MatrixInfo { rows, cols, dtype: DType::F32 };
    let mut weights = gaussian(3, (rows * cols) as usize);
    let plain = round_trip(&codec("tau=0.3"), &matrix, &weights).0;
    // Octaves between columns and between rows, with a common mean of the logarithm: the same bits if classes were free.
    for (i, w) in weights.iter_mut().enumerate() {
        let (r, c) = (i as u64 / cols, i as u64 % cols);
        *w *= (((c % 4) as f32 - 1.5) + ((r % 3) as f32 - 1.0)).exp2();
    }
    let mean_square = weights.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>() / weights.len() as f64;
    let tau = 0.3 / mean_square.sqrt();
    let (bits, _) = round_trip(&codec(&format!("tau={tau}")), &matrix, &weights);
    assert!(bits < plain + 0.06, "{bits} bits where {plain} would do");
    // A few weights far outside cost themselves and no more.
    weights.iter_mut().step_by(5000).for_each(|w| *w *= 3e4);
    let mean_square = weights.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>() / weights.len() as f64;
    let tau = 0.3 / mean_square.sqrt();
    if tau >= 0.002 {
        let (more, back) = round_trip(&codec(&format!("tau={tau}")), &matrix, &weights);
        assert!(more < bits + 0.05, "{more} bits with outliers, {bits} without");
        for (w, b) in weights.iter().zip(&back).step_by(5000) {
            assert!((w - b).abs() <= 1e-4 * w.abs() + 1.0, "{w} became {b}");
        }
    }
}

/// A matrix quantized with feedback.
struct Quantized {
    bytes: usize,
    tiles: Vec<EncodedTile>,
    side: Vec<u8>,
    back: Vec<f32>,
    loss: f64,
    expected: super::feedback::Expected,
}

fn quantize(
    codec: &Trellis,
    matrix: &MatrixInfo,
    weights: &[f32],
    factor: InputFactor,
    options: &FeedbackOptions,
) -> Quantized {
    let sample = RowSample { rows: (0..matrix.rows).collect(), weights: weights.to_vec() };
    let plan = Plan::new(codec, matrix, &sample, Arc::new(factor), options).unwrap();
    let mut out = Quantized {
        bytes: 0,
        tiles: Vec::new(),
        side: plan.side(),
        back: Vec::new(),
        loss: 0.0,
        expected: plan.expected(),
    };
    let tiling = *plan.tiling();
    for first in (0..tiling.len()).step_by(tiling.across() as usize) {
        let (row, rows) = (tiling.tile(first).row as usize, tiling.tile(first).rows as usize);
        let cols = matrix.cols as usize;
        let band = plan.quantize(row, weights[row * cols..(row + rows) * cols].to_vec()).unwrap();
        out.loss += band.loss;
        out.back.extend(plan.dequantize(row, &band));
        for i in first..first + tiling.across() {
            let mut tile = EncodedTile::default();
            plan.encode_tile(i, &band, &mut tile).unwrap();
            out.bytes += tile.bytes().len();
            out.tiles.push(tile);
        }
    }
    out
}

/// One factor for all of `h`.
fn whole(h: &[f32], damping: f64) -> (InputFactor, f64) {
    let (factor, report) = UpperFactor::new(h, h.len().isqrt(), damping).unwrap();
    (InputFactor::whole(factor), report.damping)
}

#[test]
fn the_loss_of_feedback_is_the_error_of_the_outputs() {
    let (rows, cols) = (600, 160);
    let (h, weights) = layer(rows, cols);
    let matrix = MatrixInfo { rows: rows as u64, cols: cols as u64, dtype: DType::F32 };
    let row_steps: Vec<f64> = (0..rows).map(|r| 0.5 + (r % 7) as f64 / 7.0).collect();
    let moments = DenseMoments::new(h.clone(), cols);
    let falling = InputFactor::new(&moments, 0.01, ColumnOrder::Falling).unwrap();
    assert_ne!(falling.order()[0], 0, "columns are taken in another order");
    for (codec, factor) in [(codec("states=8"), whole(&h, 0.01).0), (codec("states=16"), falling)] {
        let options =
            FeedbackOptions { tau: 0.4, row_steps: Some(row_steps.clone()), ..FeedbackOptions::default() };
        let quantized = quantize(&codec, &matrix, &weights, factor, &options);
        let direct = output_error(&weights, &quantized.back, &h, 0.01);
        assert!((quantized.loss / direct - 1.0).abs() < 1e-5, "{} against {direct}", quantized.loss);
        // The coded form decodes to the same weights, bit for bit.
        assert_eq!(decode(&codec, &matrix, &quantized.tiles, &quantized.side), quantized.back);
        // What the plan said before the last search.
        let all = (quantized.bytes + quantized.side.len()) as f64;
        assert!((quantized.expected.bytes / all - 1.0).abs() < 0.02, "{:?} {all}", quantized.expected);
    }
}

#[test]
fn blocks_of_inputs_lose_little_and_agree_with_their_own_moments() {
    let (rows, cols) = (512, 96);
    let (h, weights) = layer(rows, cols);
    let matrix = MatrixInfo { rows: rows as u64, cols: cols as u64, dtype: DType::F32 };
    let moments = DenseMoments::new(h.clone(), cols).with_block_limit(40);
    let factor = InputFactor::new(&moments, 0.01, ColumnOrder::Stored).unwrap();
    assert_eq!(factor.report().blocks, 3);
    let options = FeedbackOptions { tau: 0.4, ..FeedbackOptions::default() };
    let quantized = quantize(&codec("states=8"), &matrix, &weights, factor, &options);
    let mut blocks = h.clone();
    for (i, row) in blocks.chunks_mut(cols).enumerate() {
        row.iter_mut().enumerate().filter(|(j, _)| j / 32 != i / 32).for_each(|(_, x)| *x = 0.0);
    }
    let direct = output_error(&weights, &quantized.back, &blocks, 0.01);
    assert!((quantized.loss / direct - 1.0).abs() < 1e-5, "{} against {direct}", quantized.loss);
    let full = quantize(&codec("states=8"), &matrix, &weights, whole(&h, 0.01).0, &options);
    assert!(full.bytes < quantized.bytes, "finer steps where less is known of an input");
}

/// Bits per weight of a calibrated matrix through the codec's own front door.
#[test]
fn a_calibrated_tensor_meets_its_rate_on_any_number_of_threads() {
    let (rows, cols) = (1030, 96);
    let (h, weights) = layer(rows, cols);
    let matrix = MatrixInfo { rows: rows as u64, cols: cols as u64, dtype: DType::F32 };
    let bytes: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
    let outputs: Vec<f64> = (0..rows).map(|r| 1.0 + (r % 3) as f64).collect();
    let calibration = Calibration {
        inputs: Arc::new(DenseMoments::new(h, cols)),
        outputs: Some(outputs.into()),
        relative: false,
    };
    let codec = codec("bpw=2.5,states=8");
    let tiling = codec.tiling(&matrix).unwrap();
    let encode = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let span = Span::new(matrix, tiling, 0..tiling.len(), &bytes);
            let mut surveyor = Surveyor::new(&codec.needs(), &matrix, &tiling);
            surveyor.observe(&span).unwrap();
            surveyor.end_pass();
            let mut statistics = surveyor.finish();
            statistics.calibration = Some(calibration.clone());
            let mut encoder = codec.encoder(&matrix, &statistics).unwrap();
            let mut tiles = vec![EncodedTile::default(); span.len()];
            encoder.encode(&span, &mut tiles).unwrap();
            (tiles, encoder.finish().unwrap())
        })
    };
    let (tiles, side) = encode(1);
    assert_eq!((tiles.clone(), side.clone()), encode(3));
    let all = tiles.iter().map(|t| t.bytes().len()).sum::<usize>() + side.len();
    let bits = 8.0 * all as f64 / weights.len() as f64;
    assert!((bits - 2.5).abs() < 0.03, "{bits}");
}

#[test]
fn feedback_beats_rounding_alone() {
    let (rows, cols) = (1030, 96);
    let (h, weights) = layer(rows, cols);
    let matrix = MatrixInfo { rows: rows as u64, cols: cols as u64, dtype: DType::F32 };
    let (factor, damping) = whole(&h, 0.01);
    let codec = codec("states=8");
    let with = |factor: InputFactor, tau: f64| {
        let options = FeedbackOptions { tau, ..FeedbackOptions::default() };
        quantize(&codec, &matrix, &weights, factor, &options)
    };
    let quantized = with(factor, 0.4);
    // The same codec without knowledge of the inputs, at no fewer bits.
    let alone = with(InputFactor::identity(cols), 0.2);
    assert!(alone.bytes > quantized.bytes, "{} {}", alone.bytes, quantized.bytes);
    let error = |q: &Quantized| output_error(&weights, &q.back, &h, damping);
    assert!(error(&quantized) < 0.5 * error(&alone), "{} {}", error(&quantized), error(&alone));
}

#[test]
fn feedback_comes_close_to_the_bound_of_related_inputs() {
    let (rows, cols) = (1024, 192);
    let (h, weights) = layer(rows, cols);
    let matrix = MatrixInfo { rows: rows as u64, cols: cols as u64, dtype: DType::F32 };
    let (factor, _) = whole(&h, 0.001);
    // Shannon's bound where every direction gets bits: half the logarithm of what is left of the inputs' variance,
    // column by column, over the error.
    let logs: f64 = (0..cols).map(|i| -2.0 * f64::from(factor.diagonal(i)).log2()).sum();
    for (tau, most) in [(0.45, 0.10), (0.15, 0.09)] {
        let options = FeedbackOptions { tau, ..FeedbackOptions::default() };
        let quantized = quantize(&codec("states=64"), &matrix, &weights, factor.clone(), &options);
        let n = (rows * cols) as f64;
        let bits = 8.0 * quantized.bytes as f64 / n;
        let gap = bits - 0.5 * (logs / cols as f64 - (quantized.loss / n).log2());
        assert!(gap < most, "tau {tau}: {bits} bits, {gap} above the bound");
    }
}

#[test]
fn damaged_scales_and_tiles_end_in_values_or_an_error() {
    let (rows, cols) = (9, 40);
    let (h, weights) = layer(rows, cols);
    let matrix = MatrixInfo { rows: rows as u64, cols: cols as u64, dtype: DType::F32 };
    let codec = codec("states=4");
    let quantized = quantize(&codec, &matrix, &weights, whole(&h, 0.01).0, &FeedbackOptions::default());
    let (side, tile) = (quantized.side.clone(), quantized.tiles[0].clone());
    let try_both = |side: &[u8], tile: &[u8]| {
        let Ok(decoder) = codec.decoder(&matrix, side) else { return };
        let mut out = vec![0.0; rows * cols];
        if decoder.decode(&codec.tiling(&matrix).unwrap().tile(0), &[tile], &mut out).is_ok() {
            assert!(out.iter().all(|x| x.is_finite()));
        }
    };
    for change in [1, 0x10, 0x80, 0xff] {
        for at in 0..side.len() {
            let mut damaged = side.clone();
            damaged[at] ^= change;
            try_both(&damaged, tile.bytes());
            try_both(&side[..at], tile.bytes());
        }
        for at in 0..tile.bytes().len() {
            let mut damaged = tile.bytes().to_vec();
            damaged[at] ^= change;
            try_both(&side, &damaged);
            try_both(&side, &tile.bytes()[..at]);
        }
    }
}
