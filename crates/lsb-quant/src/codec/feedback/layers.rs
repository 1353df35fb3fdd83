//! Layers with related inputs, and codecs through their own front door: what tests of feedback use.

use crate::calibrate::{Calibration, DenseMoments};
use crate::{EncodedTile, MatrixInfo, Registry, Result, Span, Surveyor, from_f32_into};
use lsb_format::DType;
use std::sync::Arc;

/// Seeded Gaussian weights.
pub(crate) fn gaussian(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64 + 1.0 / (1u64 << 54) as f64
    };
    let mut normal = || (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
    (0..count).map(|_| normal() as f32).collect()
}

/// Second moments of related inputs of very different sizes, and weights.
pub(crate) fn layer(rows: usize, cols: usize) -> (Vec<f32>, Vec<f32>) {
    let samples = 3 * cols;
    let noise = gaussian(11, samples * (cols + 1));
    let mut h = vec![0.0f64; cols * cols];
    for x in noise.chunks(cols + 1) {
        let x: Vec<f64> = (0..cols)
            .map(|i| f64::from(x[i] + 0.7 * x[cols]) * f64::from(0.3 + (i * 7 % 5) as f32))
            .collect();
        for i in 0..cols {
            for j in 0..cols {
                h[i * cols + j] += x[i] * x[j] / samples as f64;
            }
        }
    }
    (h.iter().map(|&x| x as f32).collect(), gaussian(12, rows * cols))
}

/// `tr((W - Q) H (W - Q)^T)` with damping on the diagonal of `H`.
pub(crate) fn output_error(weights: &[f32], back: &[f32], h: &[f32], damping: f64) -> f64 {
    let n = h.len().isqrt();
    let mean = (0..n).map(|i| f64::from(h[i * n + i])).sum::<f64>() / n as f64;
    let mut total = 0.0;
    for (w, q) in weights.chunks(n).zip(back.chunks(n)) {
        let e: Vec<f64> = w.iter().zip(q).map(|(w, q)| f64::from(*w) - f64::from(*q)).collect();
        for (i, row) in h.chunks(n).enumerate() {
            let sum: f64 = row.iter().zip(&e).map(|(h, e)| f64::from(*h) * e).sum();
            total += e[i] * (sum + damping * mean * e[i]);
        }
    }
    total
}

/// A matrix after coding and decoding.
#[derive(Debug, PartialEq)]
pub(crate) struct Coded {
    pub(crate) tiles: Vec<EncodedTile>,
    pub(crate) back: Vec<f32>,
}

impl Coded {
    pub(crate) fn bytes(&self) -> usize {
        self.tiles.iter().map(|t| t.bytes().len()).sum()
    }
}

/// A matrix through the front door of the codec `text`, in one span.
pub(crate) fn code(
    text: &str,
    matrix: &MatrixInfo,
    weights: &[f32],
    moments: Option<DenseMoments>,
) -> Result<Coded> {
    let codec = Registry::standard().parse(text)?;
    let mut bytes = vec![0; weights.len() * matrix.dtype.bits() as usize / 8];
    from_f32_into(matrix.dtype, weights, &mut bytes);
    let tiling = codec.tiling(matrix)?;
    let span = Span::new(*matrix, tiling, 0..tiling.len(), &bytes);
    let mut surveyor = Surveyor::new(&codec.needs(), matrix, &tiling);
    while surveyor.wants_pass() {
        surveyor.observe(&span)?;
        surveyor.end_pass();
    }
    let mut statistics = surveyor.finish();
    statistics.calibration =
        moments.map(|m| Calibration { inputs: Arc::new(m), outputs: None, relative: false });
    let mut encoder = codec.encoder(matrix, &statistics)?;
    let mut tiles = vec![EncodedTile::default(); span.len()];
    encoder.encode(&span, &mut tiles)?;
    let decoder = codec.decoder(matrix, &encoder.finish()?)?;
    let mut back = Vec::new();
    for (i, coded) in tiles.iter().enumerate() {
        let tile = tiling.tile(i as u64);
        let mut values = vec![f32::NAN; tile.weights()];
        decoder.decode(&tile, &coded.parts().collect::<Vec<_>>(), &mut values)?;
        back.extend(values);
    }
    Ok(Coded { tiles, back })
}

/// A matrix of `size` rows and columns.
pub(crate) fn matrix(size: (usize, usize), dtype: DType) -> MatrixInfo {
    MatrixInfo { rows: size.0 as u64, cols: size.1 as u64, dtype }
}
