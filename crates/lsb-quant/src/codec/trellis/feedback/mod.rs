//! Quantizing a matrix whose inputs are known: errors are fed back to the columns that come later.
//!
//! With the second moments `H` of the inputs and `U^T U = H^-1` ([`InputFactor`]), columns are taken in order; the error of
//! column `i` in units of `U_ii`, `e_i = (w_i - q_i) / U_ii`, is taken up by all later columns, `w_j -= e_i U_ij`. The
//! squared error of the outputs is then the sum of all `e_i^2`, so that the best steps are proportional to `U_ii`:
//! `step_i = tau U_ii` (WaterSIC, arXiv 2603.04956). Rows never interact: the trellis runs down a whole column before
//! its errors are fed back, bands of rows are independent of one another, and what a sample of rows costs tells what
//! all rows will.
//!
//! Steps are those of the decoder divided by what levels are expected to fall short by, a factor per column found on the
//! sample, so that what is fed back is the error of the decoded weights.

mod band;
mod encoder;
mod learn;

pub(super) use encoder::{FeedbackEncoder, bands_at_once};

use super::classes::Classes;
use super::decode::column_step;
use super::machine::Machine;
use super::scales::{Scales, Side};
use super::search::RateTable;
use super::{RESTARTING, tile_header};
use super::{Trellis, encode::Deviations, encode::best_model, tile, tile::Size};
use crate::calibrate::{FactorReport, InputFactor};
use crate::{EncodedTile, Error, MatrixInfo, Quantizer, Result, RowSample};
use band::Band;
use lsb_format::entropy::LANES;
use lsb_format::{Tile, Tiling};
use std::borrow::Cow;
use std::sync::Arc;

/// How a matrix is quantized with feedback.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedbackOptions {
    /// Step of a column in units of its `U_ii`, that is, of the root mean squared error of an output per column.
    pub tau: f64,
    /// Step of each row in units of its column's; all 1 where absent. Smaller steps make a row more precise.
    pub row_steps: Option<Vec<f64>>,
    /// Scales of columns are stored to `2^-resolution` of an octave, 0 to 8.
    pub col_resolution: u32,
    /// The same of rows.
    pub row_resolution: u32,
    /// Searches of the sample; each but the first profits from the statistics of the one before. At least 1.
    pub passes: usize,
}

impl Default for FeedbackOptions {
    fn default() -> Self {
        FeedbackOptions { tau: 0.1, row_steps: None, col_resolution: 3, row_resolution: 2, passes: 2 }
    }
}

/// All that is decided before the first band of a matrix is quantized.
///
/// The result depends neither on threads nor on the CPU. Memory: 12 bytes per weight of every band in work.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) matrix: MatrixInfo,
    tiling: Tiling,
    machine: Machine,
    factor: Arc<InputFactor>,
    /// Step of a column whose factor is 1.
    step: f32,
    side: Side,
    row_factors: Vec<f32>,
    /// Inverse of each column's step as wanted, for deviations.
    inverse: Vec<f64>,
    /// Step of each column as decoded, and as searched with.
    decoded: Vec<f32>,
    search: Vec<f32>,
    classes: Classes,
    rates: Vec<RateTable>,
    expected: Expected,
}

/// What a plan will give, told by its sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expected {
    /// Bytes of all tiles and of the scales.
    pub bytes: f64,
    /// Sum over all rows of the squared error of the outputs, each in units of the square of its row's step factor.
    pub weighted_loss: f64,
}

/// A band of rows after quantization: a row of tiles.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedBand {
    /// Column by column.
    levels: Vec<i32>,
    rows: usize,
    /// Sum of squared errors in units of `U_ii`: the squared error of the outputs, summed over rows.
    pub loss: f64,
    /// The same with each row's errors in units of its step factor.
    pub weighted_loss: f64,
}

impl Plan {
    /// Plans for a matrix of which `sample` holds rows, and whose inputs have the factor `factor`.
    ///
    /// # Errors
    /// Where the codec does not apply.
    ///
    /// # Panics
    /// If a length does not fit the matrix.
    pub fn new(
        codec: &Trellis,
        matrix: &MatrixInfo,
        sample: &RowSample,
        factor: Arc<InputFactor>,
        options: &FeedbackOptions,
    ) -> Result<Plan> {
        let _phase = tracing::debug_span!("planning").entered();
        let (rows, cols) = (matrix.rows as usize, matrix.cols as usize);
        assert_eq!(factor.len(), cols, "a factor of the matrix's inputs");
        assert_eq!(sample.weights.len(), sample.rows.len() * cols, "whole rows");
        let tiling = codec.tiling(matrix)?;
        let mut steps = vec![0.0; cols];
        for (place, &c) in factor.order().iter().enumerate() {
            steps[c] = options.tau * f64::from(factor.diagonal(place));
        }
        let resolution = |wanted: u32| wanted.min(super::scales::MAX_RESOLUTION);
        let rows_scales =
            options.row_steps.as_ref().map(|r| Scales::nearest(r, resolution(options.row_resolution)));
        let row_factors = rows_scales.as_ref().map_or_else(|| vec![1.0; rows], Scales::factors);
        assert_eq!(row_factors.len(), rows, "a step for each row");
        // One step for the matrix, in the middle of all, and factors of the columns.
        let step = geometric_mean(&steps) as f32;
        let mut plan = Plan {
            matrix: *matrix,
            tiling,
            machine: codec.machine()?,
            factor,
            step,
            side: Side { cols: None, rows: rows_scales },
            row_factors,
            inverse: steps.iter().map(|s| 1.0 / s).collect(),
            decoded: Vec::new(),
            search: Vec::new(),
            classes: Classes::one(1, cols),
            rates: Vec::new(),
            expected: Expected { bytes: 0.0, weighted_loss: 0.0 },
        };
        plan.set_steps(&vec![1.0; cols], resolution(options.col_resolution));
        learn::learn(&mut plan, codec.lambda, sample, options)?;
        Ok(plan)
    }

    /// Steps that make up for what levels fall short by.
    fn set_steps(&mut self, shrink: &[f64], resolution: u32) {
        let step = f64::from(self.step);
        let relative: Vec<f64> = self.inverse.iter().zip(shrink).map(|(i, s)| s / (i * step)).collect();
        let scales = Scales::nearest(&relative, resolution);
        let factors = scales.factors();
        self.decoded = (0..factors.len()).map(|c| column_step(self.step, &factors, c)).collect();
        self.search = self.decoded.iter().zip(shrink).map(|(&d, s)| (f64::from(d) / s) as f32).collect();
        self.side.cols = Some(scales);
    }

    /// The partition of the coded matrix.
    pub fn tiling(&self) -> &Tiling {
        &self.tiling
    }

    /// What it took to factor the inputs' moments.
    pub fn factor_report(&self) -> FactorReport {
        self.factor.report()
    }

    /// What all rows will give.
    pub fn expected(&self) -> Expected {
        self.expected
    }

    /// Side information: the scales of columns and rows.
    pub fn side(&self) -> Vec<u8> {
        self.side.write()
    }

    /// Quantizes rows `first_row..` of the matrix, whose weights are given row-major.
    ///
    /// # Errors
    /// [`Error::NonFinite`] at the first weight that is no number.
    ///
    /// # Panics
    /// If the weights are not whole rows of the matrix.
    pub fn quantize(&self, first_row: usize, weights: Vec<f32>) -> Result<QuantizedBand> {
        let _phase = tracing::debug_span!("search").entered();
        let cols = self.matrix.cols as usize;
        if let Some(index) = weights.iter().position(|w| !w.is_finite()) {
            return Err(Error::NonFinite { index: (first_row * cols + index) as u64, value: weights[index] });
        }
        let rows = weights.len() / cols.max(1);
        let band = Band { factors: &self.row_factors[first_row..first_row + rows] };
        let (levels, moments) = self.search_band(&band, weights.into());
        Ok(QuantizedBand { levels, rows, loss: moments.loss, weighted_loss: moments.weighted })
    }

    /// Levels of a band, and sums over it.
    fn search_band(&self, band: &Band<'_>, weights: Cow<'_, [f32]>) -> (Vec<i32>, band::Sums) {
        let size = Size { rows: band.factors.len(), cols: self.matrix.cols as usize };
        let deviations = Deviations::rows_within(
            size,
            &self.classes.col_deviations(),
            self.in_steps(band.factors, &weights),
        );
        let classes = self.classes.with_rows(&deviations);
        band::quantize(self, &classes, band, weights)
    }

    /// Puts weights of a row, from a column on, in units of their steps.
    fn in_steps(&self, factors: &[f32], weights: &[f32]) -> impl Fn(usize, usize, &mut [f64]) {
        move |row, first, out| {
            let from = row * self.inverse.len() + first;
            let columns = weights[from..].iter().zip(&self.inverse[first..]);
            for (out, (&w, &inverse)) in out.iter_mut().zip(columns) {
                *out = f64::from(w / factors[row]) * inverse;
            }
        }
    }

    /// The coded form of tile `index`, which is part of `band`.
    ///
    /// # Errors
    /// If levels cannot be coded.
    ///
    /// # Panics
    /// If there is no such tile.
    pub fn encode_tile(&self, index: u64, band: &QuantizedBand, out: &mut EncodedTile) -> Result<()> {
        let _phase = tracing::debug_span!("coding").entered();
        self.encode_part(&self.tiling.tile(index), band, out)
    }

    fn encode_part(&self, tile: &Tile, band: &QuantizedBand, out: &mut EncodedTile) -> Result<()> {
        let size = Size { rows: band.rows, cols: tile.cols as usize };
        let columns = &band.levels[tile.col as usize * size.rows..][..size.cols * size.rows];
        let levels = in_lanes(size, columns);
        let deviations = Deviations::of(size, |row, first, out| {
            for (out, &level) in out.iter_mut().zip(&levels[first / LANES * size.rows + row]) {
                *out = f64::from(level);
            }
        });
        let (model, map) = best_model(size, &deviations, &levels);
        tile_header(RESTARTING, crate::scale::TileExponent::default(), self.step, out.buffer());
        tile::encode(&model, &map, &levels, out.buffer())?;
        out.end_part();
        Ok(())
    }

    /// The decoded weights of a band, row-major: what a decoder makes of the coded form.
    pub fn dequantize(&self, first_row: usize, band: &QuantizedBand) -> Vec<f32> {
        let cols = self.decoded.len();
        let mut out = vec![0.0; band.rows * cols];
        for (c, levels) in band.levels.chunks(band.rows.max(1)).enumerate() {
            for (r, &level) in levels.iter().enumerate() {
                out[r * cols + c] =
                    super::decode::weight(level, self.decoded[c], self.row_factors[first_row + r]);
            }
        }
        out
    }
}

/// Levels given column by column in the order of the lanes; zero where a column is missing.
fn in_lanes(size: Size, columns: &[i32]) -> Vec<[i32; LANES]> {
    /// Rows whose levels in one column are next to each other in the cache.
    const BLOCK: usize = 16;
    let mut out = vec![[0; LANES]; size.groups() * size.rows];
    if size.rows == 0 {
        return out;
    }
    for (out, group) in out.chunks_mut(size.rows).zip(columns.chunks(LANES * size.rows)) {
        for (first, out) in (0..).step_by(BLOCK).zip(out.chunks_mut(BLOCK)) {
            for (lane, column) in group.chunks(size.rows).enumerate() {
                for (out, &level) in out.iter_mut().zip(&column[first..]) {
                    out[lane] = level;
                }
            }
        }
    }
    out
}

fn geometric_mean(steps: &[f64]) -> f64 {
    let logs: f64 = steps.iter().map(|&s| crate::number::log2(s.max(1e-30))).sum();
    crate::number::exp2(logs / steps.len().max(1) as f64)
}
