//! Quantizing a matrix whose inputs are known: errors are fed back to the columns that come later.
//!
//! With the second moments `H` of the inputs and `U^T U = H^-1` ([`UpperFactor`]), columns are taken in order; the error of
//! column `i` in units of `U_ii`, `e_i = (w_i - q_i) / U_ii`, is taken up by all later columns, `w_j -= e_i U_ij`. The
//! squared error of the outputs is then the sum of all `e_i^2`, so that the best steps are proportional to `U_ii`:
//! `step_i = tau U_ii` (WaterSIC, arXiv 2603.04956). Rows never interact: the trellis runs down a whole column before
//! its errors are fed back, and bands of rows are independent of one another.
//!
//! Steps are those of the decoder divided by what levels are expected to fall short by, a factor per column found in the
//! pass before, so that what is fed back is the error of the decoded weights.

mod band;

use super::classes::Classes;
use super::decode::column_step;
use super::encode::{Deviations, best_model};
use super::scales::{Scales, Side};
use super::search::RateTable;
use super::shape::Shape;
use super::tile::{self, Size};
use super::{RESTARTING, Trellis, tile_header};
use crate::calibrate::UpperFactor;
use crate::{EncodedTile, Error, MatrixInfo, Quantizer, Result};
use band::{Band, BandResult, Plan};
use lsb_format::entropy::LANES;
use lsb_format::{Tile, Tiling};
use rayon::prelude::*;

/// How a matrix is quantized with feedback.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedbackOptions {
    /// Step of a column in units of its `U_ii`, that is, of the root mean squared error of an output per column.
    pub tau: f64,
    /// Step of a row in units of its column's; all 1 where absent. Smaller steps make a row more precise.
    pub row_steps: Option<Vec<f64>>,
    /// Order in which columns are quantized; the factor is that of inputs in this order. As stored where absent.
    pub order: Option<Vec<usize>>,
    /// Scales are stored to `2^-resolution` of an octave, 0 to 8.
    pub resolution: u32,
    /// Searches of the whole matrix; each but the first profits from the statistics of the one before. At least 1.
    pub passes: usize,
}

impl Default for FeedbackOptions {
    fn default() -> Self {
        FeedbackOptions { tau: 0.1, row_steps: None, order: None, resolution: 4, passes: 2 }
    }
}

/// A matrix after quantization with feedback.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    matrix: MatrixInfo,
    tiling: Tiling,
    /// Step of a column whose factor is 1.
    step: f32,
    side: Side,
    /// Levels of each band of tiles, column by column.
    bands: Vec<Vec<i32>>,
    /// Sum of squared errors in units of `U_ii`: the squared error of the outputs, summed over rows, per input.
    pub loss: f64,
}

/// Quantizes `weights`, row-major, `matrix.rows` x `matrix.cols`, whose inputs have the factor `factor`.
///
/// The result depends neither on threads nor on the CPU. Memory: 12 bytes per weight of every band of tiles in work.
///
/// # Errors
/// [`Error::NonFinite`] at the first weight that is no number, and where the codec does not apply.
///
/// # Panics
/// If a length does not fit the matrix, or the order is no permutation.
pub fn quantize(
    codec: &Trellis,
    matrix: &MatrixInfo,
    weights: &[f32],
    factor: &UpperFactor,
    options: &FeedbackOptions,
) -> Result<Quantized> {
    let (rows, cols) = (matrix.rows as usize, matrix.cols as usize);
    assert_eq!(weights.len(), rows * cols, "weights of the matrix");
    assert_eq!(factor.len(), cols, "a factor of the matrix's inputs");
    if let Some(index) = weights.iter().position(|w| !w.is_finite()) {
        return Err(Error::NonFinite { index: index as u64, value: weights[index] });
    }
    let tiling = codec.tiling(matrix)?;
    let order = options.order.clone().unwrap_or_else(|| (0..cols).collect());
    let mut place = vec![usize::MAX; cols];
    order.iter().enumerate().for_each(|(i, &c)| place[c] = i);
    assert!(order.len() == cols && !place.contains(&usize::MAX), "an order of all columns");

    let wanted: Vec<f64> = place.iter().map(|&i| options.tau * f64::from(factor.diagonal(i))).collect();
    let resolution = options.resolution.min(super::scales::MAX_RESOLUTION);
    let row_scales = options.row_steps.as_ref().map(|r| Scales::nearest(r, resolution));
    let row_factors = row_scales.as_ref().map_or_else(|| vec![1.0; rows], Scales::factors);
    assert_eq!(row_factors.len(), rows, "a step for each row");

    let mut state = Pass::first(rows, cols, weights, &wanted, &row_factors);
    let mut shrink = vec![1.0; cols];
    let mut out = None;
    for _ in 0..options.passes.max(1) {
        let steps: Vec<f64> = wanted.iter().zip(&shrink).map(|(w, s)| w * s).collect();
        // One step for the matrix, in the middle of all, and factors of the columns.
        let step = geometric_mean(&steps) as f32;
        let relative: Vec<f64> = steps.iter().map(|s| s / f64::from(step)).collect();
        let col_scales = Scales::nearest(&relative, resolution);
        let col_factors = col_scales.factors();
        let decoded: Vec<f32> = (0..cols).map(|c| column_step(step, &col_factors, c)).collect();
        let plan = Plan {
            cols,
            order: &order,
            factor,
            machine: codec.machine()?,
            decoded: &decoded,
            search: decoded.iter().zip(&shrink).map(|(&d, s)| (f64::from(d) / s) as f32).collect(),
            rates: state.shapes.iter().map(|s| s.rates(codec.lambda)).collect::<Vec<RateTable>>(),
            classes: &state.classes,
        };
        let bands = (0..tiling.len()).step_by(tiling.across().max(1) as usize).collect::<Vec<_>>();
        let results: Vec<BandResult> = bands
            .into_par_iter()
            .map(|first| {
                let (row, n) = (tiling.tile(first).row as usize, tiling.tile(first).rows as usize);
                let band = Band { first_row: row, factors: &row_factors[row..row + n] };
                band::quantize(&plan, &band, &weights[row * cols..(row + n) * cols])
            })
            .collect();
        for (c, shrink) in shrink.iter_mut().enumerate() {
            let (products, squares) =
                results.iter().fold((0.0, 0.0), |(p, s), r| (p + r.moments[c].0, s + r.moments[c].1));
            *shrink = if squares > 0.0 { (products / squares).clamp(0.5, 1.5) } else { 1.0 };
        }
        state = Pass::after(rows, cols, &results);
        let loss = results.iter().map(|r| r.loss).sum();
        let bands = results.into_iter().map(|r| r.levels).collect();
        let side = Side { cols: Some(col_scales), rows: row_scales.clone() };
        out = Some(Quantized { matrix: *matrix, tiling, step, side, bands, loss });
    }
    match out {
        Some(out) => Ok(out),
        None => unreachable!("there is at least one pass"),
    }
}

/// What a pass knows of the levels to come.
struct Pass {
    classes: Classes,
    shapes: Vec<Shape>,
}

impl Pass {
    /// From the weights themselves, as if nothing were fed back.
    fn first(rows: usize, cols: usize, weights: &[f32], steps: &[f64], factors: &[f32]) -> Pass {
        let inverse: Vec<f64> = steps.iter().map(|s| 1.0 / s).collect();
        let value =
            |r: usize, c: usize| f64::from(weights[r * cols + c]) * inverse[c] / f64::from(factors[r]);
        let deviations = Deviations::from_fn(Size { rows, cols }, value);
        let classes = deviations.classes(true, true);
        let shapes = (0..classes.count()).map(|c| Shape::gaussian(classes.deviation(c))).collect();
        Pass { classes, shapes }
    }

    /// From the levels of the pass before.
    fn after(rows: usize, cols: usize, results: &[BandResult]) -> Pass {
        let band_rows = results.first().map_or(1, |r| r.levels.len() / cols.max(1)).max(1);
        let level = |r: usize, c: usize| {
            let levels = &results[r / band_rows].levels;
            levels[c * (levels.len() / cols) + r % band_rows]
        };
        let deviations = Deviations::from_fn(Size { rows, cols }, |r, c| f64::from(level(r, c)));
        let classes = deviations.classes(true, true);
        let mut counts = vec![vec![0.0; super::shape::MAX_MAGNITUDES + 1]; classes.count()];
        for c in 0..cols {
            for r in 0..rows {
                let m = (level(r, c).unsigned_abs() as usize).min(super::shape::MAX_MAGNITUDES);
                counts[classes.class(r, c)][m] += 1.0;
            }
        }
        let shapes = counts.iter().map(|c| Shape::of_counts(c)).collect();
        Pass { classes, shapes }
    }
}

fn geometric_mean(steps: &[f64]) -> f64 {
    let logs: f64 = steps.iter().map(|&s| super::number::log2(s.max(1e-30))).sum();
    super::number::exp2(logs / steps.len().max(1) as f64)
}

impl Quantized {
    /// The partition of the coded matrix.
    pub fn tiling(&self) -> &Tiling {
        &self.tiling
    }

    /// Side information: the scales of columns and rows.
    pub fn side(&self) -> Vec<u8> {
        self.side.write()
    }

    /// The coded form of tile `index`.
    ///
    /// # Errors
    /// If levels cannot be coded.
    ///
    /// # Panics
    /// If there is no such tile.
    pub fn encode_tile(&self, index: u64, out: &mut EncodedTile) -> Result<()> {
        let tile = self.tiling.tile(index);
        let size = Size { rows: tile.rows as usize, cols: tile.cols as usize };
        let levels = self.levels_of(&tile, size);
        let deviations =
            Deviations::from_fn(size, |r, c| f64::from(levels[c / LANES * size.rows + r][c % LANES]));
        let (model, map) = best_model(size, &deviations, &levels);
        tile_header(RESTARTING, crate::scale::TileExponent::default(), self.step, out.buffer());
        tile::encode(&model, &map, &levels, out.buffer())?;
        out.end_part();
        Ok(())
    }

    /// The levels of a tile in the order of the lanes.
    fn levels_of(&self, tile: &Tile, size: Size) -> Vec<[i32; LANES]> {
        let band = &self.bands[(tile.index / self.tiling.across()) as usize];
        let at = |row: usize, col: usize| band[(tile.col as usize + col) * size.rows + row];
        let of = |(row, first, width): (usize, usize, usize)| {
            std::array::from_fn(|lane| if lane < width { at(row, first + lane) } else { 0 })
        };
        size.each_step().map(of).collect()
    }

    /// The decoded weights, row-major: what a decoder makes of the coded form.
    pub fn dequantize(&self) -> Vec<f32> {
        let (rows, cols) = (self.matrix.rows as usize, self.matrix.cols as usize);
        let factors =
            |scales: &Option<Scales>, n| scales.as_ref().map_or_else(|| vec![1.0; n], Scales::factors);
        let (by_col, by_row) = (factors(&self.side.cols, cols), factors(&self.side.rows, rows));
        let mut out = vec![0.0; rows * cols];
        let mut first = 0;
        for band in &self.bands {
            let n = band.len() / cols.max(1);
            for (c, levels) in band.chunks(n.max(1)).enumerate() {
                let step = column_step(self.step, &by_col, c);
                for (r, &level) in (first..).zip(levels) {
                    out[r * cols + c] = super::decode::weight(level, step, by_row[r]);
                }
            }
            first += n;
        }
        out
    }
}
