//! Statistics of a whole tensor that codecs ask for before encoding, and how they are gathered.

use crate::{MatrixInfo, Result, Span};
use lsb_format::Tiling;

/// Statistics a codec must be given before it encodes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Needs {
    /// Select this share of the weights, the largest by magnitude.
    pub outlier_ratio: Option<f64>,
}

impl Needs {
    /// Exactly this share of the weights, selected by magnitude.
    pub fn outliers(ratio: f64) -> Self {
        Needs { outlier_ratio: Some(ratio) }
    }
}

/// Which weights are the `count` largest by magnitude: all above the threshold, and of those equal to it
/// the first ones by index.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OutlierSelection {
    /// Weights selected: `round(ratio * weights)`.
    pub count: u64,
    /// Bits of the threshold magnitude as a non-negative f32 (bit order is magnitude order).
    pub threshold: u32,
    /// For each tile, how many of its weights equal to the threshold are selected, first ones first.
    pub ties: Vec<u32>,
}

/// What was gathered.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Statistics {
    /// Present where [`Needs::outlier_ratio`] was asked for.
    pub outliers: Option<OutlierSelection>,
}

/// Gathers what [`Needs`] asks for in as few passes over the weights as possible.
///
/// ```text
/// while surveyor.wants_pass() { for span in tensor { surveyor.observe(&span)? } surveyor.end_pass(); }
/// let statistics = surveyor.finish();
/// ```
#[derive(Debug)]
pub struct Surveyor {}

impl Surveyor {
    /// A surveyor for one tensor.
    pub fn new(needs: &Needs, matrix: &MatrixInfo, tiling: &Tiling) -> Self {
        let _ = (needs, matrix, tiling);
        Surveyor {}
    }
    /// True while another pass over all spans, in order, is needed.
    pub fn wants_pass(&self) -> bool {
        false
    }
    /// Takes in the next span of the current pass.
    ///
    /// # Errors
    /// [`crate::Error::NonFinite`] at the first NaN or infinity.
    pub fn observe(&mut self, span: &Span<'_>) -> Result<()> {
        let _ = span;
        Ok(())
    }
    /// Ends a pass.
    pub fn end_pass(&mut self) {}
    /// The statistics.
    pub fn finish(self) -> Statistics {
        Statistics::default()
    }
}
