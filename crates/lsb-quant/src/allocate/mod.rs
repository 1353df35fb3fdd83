//! One step for a whole model: what tensors cost as a function of it, and the step that meets a size.
//!
//! With errors in units of what each output bears, the best division of bits over tensors and rows is the one in which
//! all have the same step: `d loss / d rate` is then the same everywhere (reverse water-filling). One number is left to be
//! found, by bisection over curves that were measured on samples of rows.

mod curve;
#[cfg(test)]
mod tests;

pub use curve::{RateCurve, RatePoint};

use crate::calibrate::Calibration;
use crate::{MatrixInfo, Quantizer, Result, RowSample};
use std::fmt::Debug;
use std::sync::Arc;

/// A codec whose precision follows one number, tau: the step in units of the errors that outputs bear.
pub trait RateControl: Debug + Send + Sync {
    /// Bits per weight aimed at over all tensors together; `None` where tau is given already.
    fn bpw(&self) -> Option<f64>;

    /// What a tensor costs around `bpw` bits per weight, tiles and side information together.
    ///
    /// # Errors
    /// If the calibration is unusable.
    fn curve(
        &self,
        matrix: &MatrixInfo,
        sample: &RowSample,
        calibration: &Calibration,
        bpw: f64,
    ) -> Result<RateCurve>;

    /// The same codec at this tau.
    fn at(&self, tau: f64) -> Arc<dyn Quantizer>;
}

/// The largest number of octaves, that is, the coarsest `log2(tau)`, at which the curves sum to at most `bytes`; the
/// finest that the curves know where there is none.
pub fn solve(curves: &[&RateCurve], bytes: f64) -> f64 {
    let total = |octaves: f64| curves.iter().map(|c| c.bytes(octaves)).sum::<f64>();
    let (mut fine, mut coarse) = (-60.0, 60.0);
    for _ in 0..60 {
        let middle = 0.5 * (fine + coarse);
        if total(middle) > bytes { fine = middle } else { coarse = middle }
    }
    coarse
}
