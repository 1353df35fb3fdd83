//! Codecs whose precision does not follow the step: what they cost a tensor.

use super::OutputCosts;
use crate::calibrate::{Calibration, ColumnOrder, InputFactor};
use crate::{EncodedTile, MatrixInfo, Quantizer, Result, RowSample, Span, Surveyor, Wanted, from_f32_into};
use rayon::prelude::*;
use std::sync::Arc;

/// Share of the mean of squares that is added to those of all inputs before errors are judged by them.
const DAMPING: f64 = 0.01;

/// What a tensor costs when it is stored in one certain way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FixedCost {
    /// Bytes of tiles and side information.
    pub bytes: f64,
    /// As [`super::RatePoint::loss`].
    pub loss: f64,
}

/// What storing the matrix of which `sample` holds rows with `quantizer` costs; `None` where the codec does not apply. The
/// rows are coded and decoded again as a matrix of their own.
///
/// # Errors
/// If the codec fails, or the calibration is unusable.
pub fn fixed_cost(
    quantizer: &dyn Quantizer,
    matrix: &MatrixInfo,
    sample: &RowSample,
    calibration: &Calibration,
) -> Result<Option<FixedCost>> {
    let rows = sample.rows.len();
    let part = MatrixInfo { rows: rows as u64, ..*matrix };
    if rows == 0 || quantizer.estimate(matrix).is_none() || quantizer.estimate(&part).is_none() {
        return Ok(None);
    }
    let mut source = vec![0; sample.weights.len() * matrix.dtype.bits() as usize / 8];
    from_f32_into(matrix.dtype, &sample.weights, &mut source);
    let tiling = quantizer.tiling(&part)?;
    let span = Span::new(part, tiling, 0..tiling.len(), &source);
    let needs = quantizer.needs();
    let mut surveyor = Surveyor::new(&needs, &part, &tiling);
    while surveyor.wants_pass() {
        surveyor.observe(&span)?;
        surveyor.end_pass();
    }
    let mut statistics = surveyor.finish();
    if needs.calibration != Wanted::No {
        let chosen = |outputs: &Arc<[f64]>| sample.rows.iter().map(|&r| outputs[r as usize]).collect();
        let outputs = calibration.outputs.as_ref().filter(|o| o.len() as u64 == matrix.rows).map(chosen);
        statistics.calibration = Some(Calibration { outputs, ..calibration.clone() });
    }
    let mut encoder = quantizer.encoder(&part, &statistics)?;
    let mut tiles = vec![EncodedTile::default(); span.len()];
    encoder.encode(&span, &mut tiles)?;
    let side = encoder.finish()?;
    let coded: usize = tiles.iter().map(|t| t.bytes().len()).sum();
    let bytes = coded as f64 * matrix.rows as f64 / rows as f64 + side.len() as f64;

    let decoder = quantizer.decoder(&part, &side)?;
    if decoder.is_exact() {
        return Ok(Some(FixedCost { bytes, loss: 0.0 }));
    }
    let cols = matrix.cols as usize;
    let mut errors = sample.weights.clone();
    for (i, encoded) in tiles.iter().enumerate() {
        let tile = span.tile(i);
        let parts: Vec<&[u8]> = encoded.parts().collect();
        let mut values = vec![0.0; tile.weights() as usize];
        decoder.decode(&tile, &parts, &mut values)?;
        for (r, row) in values.chunks(tile.cols as usize).enumerate() {
            let at = (tile.row as usize + r) * cols + tile.col as usize;
            errors[at..at + row.len()].iter_mut().zip(row).for_each(|(e, v)| *e -= v);
        }
    }
    let factor = InputFactor::shared(&*calibration.inputs, DAMPING, ColumnOrder::Falling)?;
    let costs = OutputCosts::new(matrix.rows, sample, calibration, &factor);
    let powers: Vec<f64> = errors.par_chunks(cols).map(|e| factor.power(e)).collect();
    // In the order of rows, so that the sum is the same on any number of threads.
    let loss: f64 = powers.iter().zip(&sample.rows).map(|(&p, &row)| costs.cost(row, p)).sum();
    Ok(Some(FixedCost { bytes, loss: loss * matrix.rows as f64 / rows as f64 }))
}
