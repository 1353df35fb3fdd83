//! Encoding one tile of rows whose inputs are known.
//!
//! A tile keeps as many outliers as the tensor's largest weights would give it, but chooses those whose loss would cost
//! the outputs most: largest `w^2 / U_ii^2`, of equals the first ones (BiLLM, arXiv 2402.04291). What they are rounded by
//! is fed back as all other errors are, so they keep the value that is wanted when their column is reached. Scales and
//! means are those of least squares with weights `1 / U_ii^2`, fitted to the outputs once signs are known.

use super::encode::{Coded, Encoder};
use super::{OutlierBits, outliers};
use crate::codec::feedback::{KnownInputs, Levels, NUMBERS, PerNumber, Refits, quantize};
use crate::codec::signs;
use crate::scale::{TileExponent, to_half};
use crate::{EncodedTile, Result, TileEncoder, to_f32};
use half::f16;
use lsb_format::{DType, Tile};

#[derive(Debug)]
pub(super) struct CalibratedEncoder {
    pub(super) plain: Encoder,
    pub(super) inputs: KnownInputs,
}

/// Refinements of a group's two levels before errors are fed back.
const ROUNDS: usize = 3;
/// Where outliers are so many times larger than the largest other weight, they are left out of all sums, as they are
/// without calibration.
const FAR_OUT: f32 = 1e18;

impl TileEncoder for CalibratedEncoder {
    fn encode_tile(&self, tile: &Tile, bytes: &[u8], out: &mut EncodedTile) -> Result<()> {
        let count = self.plain.scan(tile, bytes)?.outliers.len();
        let mut weights = to_f32(self.plain.dtype, bytes);
        let (cols, group) = (tile.cols as usize, self.plain.codec.group.width(tile.cols as usize));
        let positions = self.most_salient(&weights, count);
        let mut kept = vec![false; weights.len()];
        positions.iter().for_each(|&p| kept[p as usize] = true);
        let largest = |of: bool| {
            let magnitudes = weights.iter().zip(&kept).filter(|&(_, &k)| k == of).map(|(w, _)| w.abs());
            magnitudes.fold(0.0f32, f32::max)
        };
        let (outlier, other) = (largest(true), largest(false));
        if outlier / FAR_OUT > other {
            return self.plain.encode_tile(tile, bytes, out);
        }
        let exponent = TileExponent::of_magnitude(other.to_bits());
        exponent.divide_all(&mut weights);

        let levels = Signs {
            kept: &kept,
            cols,
            with_means: self.plain.codec.error_compensation,
            precision: match self.plain.dtype {
                // Values that are no longer those of the source need not cost more than those did.
                DType::BF16 if self.plain.codec.outlier_bits == OutlierBits::F16 => OutlierBits::BF16,
                _ => self.plain.codec.outlier_bits,
            },
        };
        let mut groups = Vec::with_capacity(self.plain.codec.group.in_tile(tile));
        for (row, kept) in weights.chunks(cols).zip(kept.chunks(cols)) {
            let importance = self.inputs.importance().chunks(group);
            for ((weights, kept), importance) in row.chunks(group).zip(kept.chunks(group)).zip(importance) {
                groups.push(levels.fit(weights, kept, importance));
            }
        }
        let mut found = quantize(&levels, &self.inputs, &weights, group, groups, Refits::AfterCodes);

        exponent.multiply_all(&mut found.values);
        let mut magnitudes = Vec::with_capacity(positions.len());
        for &p in &positions {
            let value = found.values[p as usize];
            magnitudes.push(value.abs().to_bits());
            found.codes[p as usize] = u8::from(!value.is_sign_negative());
        }
        let mut plane = Vec::with_capacity(tile.weights().div_ceil(8) + 4);
        signs::append_bits(&found.codes, 0, &mut plane);
        let halves = |of: fn(&Pair) -> f16| -> Vec<u8> {
            found.groups.iter().flat_map(|g| of(g).to_le_bytes()).collect()
        };
        let (scales, means) = (halves(|g| g.scale), halves(|g| g.mean));
        let coded = Coded { exponent, scales: &scales, means: &means, plane: &plane, positions: &positions };
        self.plain.write(tile, &coded, &magnitudes, out)
    }
}

impl CalibratedEncoder {
    /// Positions of the `count` weights whose loss would cost most, increasing.
    fn most_salient(&self, weights: &[f32], count: usize) -> Vec<u32> {
        let importance = self.inputs.importance();
        let saliency = |p: u32| {
            let w = f64::from(weights[p as usize]);
            w * w * f64::from(importance[p as usize % importance.len()])
        };
        let mut all: Vec<u32> = (0..weights.len() as u32).collect();
        if count > 0 && count < all.len() {
            all.select_nth_unstable_by(count, |&a, &b| saliency(b).total_cmp(&saliency(a)).then(a.cmp(&b)));
        }
        all.truncate(count);
        all.sort_unstable();
        all
    }
}

/// Mean and scale of a group as stored.
#[derive(Clone, Debug)]
struct Pair {
    mean: f16,
    scale: f16,
    /// The two levels.
    low: f32,
    high: f32,
}

impl Pair {
    fn new(mean: f64, scale: f64) -> Self {
        let (mean, scale) = (to_half(mean), to_half(scale.max(0.0)));
        let (m, s) = (f64::from(mean.to_f32()), f64::from(scale.to_f32()));
        Pair { mean, scale, low: (m - s) as f32, high: (m + s) as f32 }
    }
}

/// Codes: 0 for the lower level, 1 for the upper one, [`KEPT`] for an outlier.
struct Signs<'a> {
    /// Row-major.
    kept: &'a [bool],
    cols: usize,
    with_means: bool,
    precision: OutlierBits,
}

const KEPT: u8 = 2;

impl Signs<'_> {
    /// Two levels of small squared error, weighted by `importance`.
    fn fit(&self, weights: &[f32], kept: &[bool], importance: &[f32]) -> Pair {
        // Sums of importance and of weights below and above a level.
        let split = |level: f64| {
            let mut sums = [[0.0f64; 2]; 2];
            for ((&w, &kept), &d) in weights.iter().zip(kept).zip(importance) {
                if !kept {
                    let side = &mut sums[usize::from(f64::from(w) > level)];
                    side[0] += f64::from(d);
                    side[1] += f64::from(d) * f64::from(w);
                }
            }
            sums
        };
        let mean_of = |[n, sum]: [f64; 2]| if n > 0.0 { sum / n } else { 0.0 };
        let mut mean = 0.0;
        if self.with_means {
            let [low, high] = split(0.0);
            mean = mean_of([low[0] + high[0], low[1] + high[1]]);
            for _ in 0..ROUNDS {
                let [low, high] = split(mean);
                if low[0] == 0.0 || high[0] == 0.0 {
                    break;
                }
                mean = 0.5 * (mean_of(low) + mean_of(high));
            }
        }
        let [low, high] = split(mean);
        let distance = (high[1] - mean * high[0]) - (low[1] - mean * low[0]);
        Pair::new(mean, mean_of([low[0] + high[0], distance]))
    }
}

impl Levels for Signs<'_> {
    type Group = Pair;

    fn numbers(&self) -> usize {
        if self.with_means { 2 } else { 1 }
    }

    fn code(&self, group: &Pair, row: usize, col: usize, target: f32) -> (u8, f32) {
        if self.kept[row * self.cols + col] {
            return (KEPT, outliers::nearest(target, self.precision));
        }
        if target > group.mean.to_f32() { (1, group.high) } else { (0, group.low) }
    }

    fn value(&self, group: &Pair, code: u8) -> Option<f32> {
        match code {
            KEPT => None,
            0 => Some(group.low),
            _ => Some(group.high),
        }
    }

    fn directions(&self, code: u8) -> PerNumber<f32> {
        let mut out = [0.0; NUMBERS];
        if code < KEPT {
            (out[0], out[1]) = (if code == 1 { 1.0 } else { -1.0 }, 1.0);
        }
        out
    }

    fn moved(&self, group: &Pair, change: &PerNumber<f64>) -> Pair {
        Pair::new(f64::from(group.mean.to_f32()) + change[1], f64::from(group.scale.to_f32()) + change[0])
    }
}
