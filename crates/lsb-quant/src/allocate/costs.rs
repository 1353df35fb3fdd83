//! What errors of outputs cost, in a unit that is the same for all maps of a model.

use crate::RowSample;
use crate::calibrate::{Calibration, InputFactor};
use rayon::prelude::*;
use std::sync::Arc;

/// Rows of which the mean square of outputs is estimated at most. (A few outputs of a map may be far larger than the others:
/// too few rows miss them, and the map takes more bits than its outputs are worth.)
const POWER_ROWS: usize = 512;

/// What a unit of squared error costs on each output of a map.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputCosts {
    /// Squared errors count in units of this.
    unit: f64,
    rows: Option<Arc<[f64]>>,
}

impl OutputCosts {
    /// Of a map with `rows` outputs, of which `sample` holds some, and whose inputs have the factor `factor`. Where nothing is
    /// known of what outputs cost, errors count in units of their mean square.
    pub fn new(rows: u64, sample: &RowSample, calibration: &Calibration, factor: &InputFactor) -> Self {
        let known = calibration.outputs.clone().filter(|o| o.len() as u64 == rows);
        let unit = if known.is_none() || calibration.relative { output_power(sample, factor) } else { 1.0 };
        OutputCosts { unit, rows: known }
    }

    /// What squared errors are divided by before they are multiplied by what a row costs.
    pub fn unit(&self) -> f64 {
        self.unit
    }

    /// What rows cost beside that; all 1 where absent.
    pub fn rows(&self) -> Option<&[f64]> {
        self.rows.as_deref()
    }

    /// What the squared error `power` of the output of row `row` costs.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn cost(&self, row: u64, power: f64) -> f64 {
        power / self.unit * self.rows.as_ref().map_or(1.0, |r| r[row as usize])
    }
}

/// Mean square of the outputs of some rows of the sample.
fn output_power(sample: &RowSample, factor: &InputFactor) -> f64 {
    let rows = sample.rows.len();
    let count = rows.min(POWER_ROWS);
    let n = factor.len();
    let chosen = (0..count).into_par_iter().map(|i| (2 * i + 1) * rows / (2 * count));
    let powers: Vec<f64> = chosen.map(|r| factor.power(&sample.weights[r * n..(r + 1) * n])).collect();
    let mean = powers.iter().sum::<f64>() / count.max(1) as f64;
    if mean > 0.0 { mean } else { 1.0 }
}
