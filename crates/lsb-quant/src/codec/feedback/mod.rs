//! Error feedback for codecs whose groups have a few numbers each.
//!
//! With the second moments `H` of a map's inputs and `U^T U = H^-1` ([`InputFactor`]), columns are taken in order; what a
//! column is off by, `e_i = (w_i - q_i) / U_ii`, is made up for by all later columns, `w_j -= e_i U_ij`. The squared error
//! of the outputs is then the sum of all `e_i^2` (E. Frantar et al., "GPTQ", 2022; J. Chee et al., "QuIP", 2023).
//!
//! Decoded weights are linear in the numbers of their groups once codes are fixed, so that the numbers that are best for
//! the outputs follow by least squares (`refit.rs`), after which codes are found anew. Of all attempts each row keeps its
//! best. Rows never interact: the result depends neither on how rows are cut into tiles nor on threads.

#[cfg(test)]
pub(crate) mod layers;
mod refit;
mod search;
mod sweep;
#[cfg(test)]
mod tests;

pub(crate) use search::{Refits, quantize};
pub(crate) use sweep::{columns, forward, stride};

pub(crate) use super::least_squares::{NUMBERS, PerNumber};
use crate::calibrate::{ColumnOrder, InputFactor};
use crate::{Error, MatrixInfo, Result, Statistics};
use lsb_format::Tiling;
use std::sync::Arc;

/// Share of the mean square of inputs that is added to that of each, where a codec has no parameter for it.
pub(crate) const DAMPING: f64 = 0.01;

/// How the codes of a group become weights.
pub(crate) trait Levels {
    /// The numbers of a group as they are stored.
    type Group: Clone;

    /// How many numbers there are.
    fn numbers(&self) -> usize;

    /// The code for the weight at a row and column of the tile whose value is to be `target`, and what it decodes to.
    fn code(&self, group: &Self::Group, row: usize, col: usize, target: f32) -> (u8, f32);

    /// What a code decodes to; `None` for weights that keep a value of their own.
    fn value(&self, group: &Self::Group, code: u8) -> Option<f32>;

    /// What each number is multiplied with in the value of a code: zeros for weights with a value of their own.
    fn directions(&self, code: u8) -> PerNumber<f32>;

    /// The group that can be stored whose numbers are nearest to those of `group` with `change` added.
    fn moved(&self, group: &Self::Group, change: &PerNumber<f64>) -> Self::Group;
}

/// What is known of a map's inputs.
#[derive(Clone, Debug)]
pub(crate) struct KnownInputs {
    factor: Arc<InputFactor>,
    importance: Vec<f32>,
    squares: Vec<f64>,
}

impl KnownInputs {
    /// What calibration knows; `None` where there is none, or where tiles do not hold whole rows.
    ///
    /// # Errors
    /// If there are not as many inputs as columns, or their moments have no factor.
    pub(crate) fn new(
        codec: &str,
        matrix: &MatrixInfo,
        tiling: &Tiling,
        statistics: &Statistics,
        damping: f64,
        order: ColumnOrder,
    ) -> Result<Option<Self>> {
        let Some(calibration) = &statistics.calibration else { return Ok(None) };
        if matrix.weights() == 0 || tiling.tile_cols() < matrix.cols {
            return Ok(None);
        }
        let diagonal = calibration.inputs.diagonal();
        if diagonal.len() as u64 != matrix.cols {
            let message = format!("{} inputs are known of a map of {}", diagonal.len(), matrix.cols);
            return Err(Error::NotApplicable { codec: codec.to_owned(), message });
        }
        let factor = InputFactor::shared(&*calibration.inputs, damping, order)?;
        let mean = diagonal.iter().map(|&d| f64::from(d)).sum::<f64>() / diagonal.len() as f64;
        let added = factor.report().damping * mean;
        let squares = diagonal.iter().map(|&d| f64::from(d) + added).collect();
        let smallest = (0..factor.len()).map(|i| factor.diagonal(i)).fold(f32::INFINITY, f32::min);
        let mut importance = vec![0.0; factor.len()];
        for (place, &c) in factor.order().iter().enumerate() {
            let share = smallest / factor.diagonal(place);
            importance[c] = (share * share).max(f32::MIN_POSITIVE);
        }
        Ok(Some(KnownInputs { factor, importance, squares }))
    }

    /// What an error of a weight of each column costs once later columns have made up for it, `1 / U_ii^2` over the largest
    /// of them: above 0 and at most 1, in the order columns are stored in.
    pub(crate) fn importance(&self) -> &[f32] {
        &self.importance
    }
}
