//! One step for a whole model: what tensors cost as a function of it, and the step that meets a size.
//!
//! With errors in units of what each output bears, the best division of bits over tensors and rows is the one in which
//! all have the same step: `d loss / d rate` is then the same everywhere (reverse water-filling). One number is left to be
//! found, by bisection over curves that were measured on samples of rows.

//!
//! A tensor may also be stored by a codec that knows nothing of the step. The step has a price, the loss that a byte more
//! would save anywhere; what is stored otherwise is what is cheaper at that price.

mod costs;
mod curve;
mod fixed;
#[cfg(test)]
mod tests;

pub use costs::OutputCosts;
pub use curve::{RateCurve, RatePoint};
pub use fixed::{FixedCost, fixed_cost};

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

/// The largest number of octaves, that is, the coarsest `log2(tau)`, at which the curves sum to at most `bytes`, each at the
/// step or stored otherwise where that is cheaper; the finest that the curves know where there is none.
pub fn solve(curves: &[&RateCurve], bytes: f64) -> f64 {
    let total = |octaves: f64| {
        let price = price(curves, octaves);
        curves
            .iter()
            .map(|c| c.chosen(octaves, price).map_or_else(|| c.bytes(octaves), |f| f.1.bytes))
            .sum::<f64>()
    };
    let (mut fine, mut coarse) = (-60.0, 60.0);
    for _ in 0..60 {
        let middle = 0.5 * (fine + coarse);
        if total(middle) > bytes { fine = middle } else { coarse = middle }
    }
    coarse
}

/// The loss that a byte more would save at a step of `octaves`, all curves together.
pub fn price(curves: &[&RateCurve], octaves: f64) -> f64 {
    const REACH: f64 = 0.4;
    let (mut loss, mut bytes) = (0.0, 0.0);
    for c in curves {
        loss += c.loss(octaves + REACH) - c.loss(octaves - REACH);
        bytes += c.bytes(octaves - REACH) - c.bytes(octaves + REACH);
    }
    if bytes > 0.0 { (loss / bytes).max(0.0) } else { 0.0 }
}
