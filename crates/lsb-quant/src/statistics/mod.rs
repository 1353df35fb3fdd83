//! Statistics of a whole tensor that codecs ask for before encoding, and how they are gathered.

mod magnitudes;
mod sample;
mod surveyor;
mod tally;
#[cfg(test)]
mod tests;

use crate::calibrate::Calibration;
pub use magnitudes::Magnitudes;
pub use sample::RowSample;
pub use surveyor::Surveyor;

/// Statistics a codec must be given before it encodes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Needs {
    /// Select this share of the weights, the largest by magnitude.
    pub outlier_ratio: Option<f64>,
    /// Count the magnitudes.
    pub magnitudes: bool,
    /// Keep whole rows, evenly spaced, of about this many weights together; all rows where that is enough.
    pub sample: Option<usize>,
    /// What is known of the inputs and outputs of the map, where anything is.
    pub calibration: Wanted,
}

/// Whether a codec uses calibration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    /// It makes no difference.
    #[default]
    No,
    /// Where it was asked for or is there anyway.
    Useful,
    /// It is what the codec is made for.
    Yes,
}

impl Needs {
    /// Exactly this share of the weights, selected by magnitude.
    pub fn outliers(ratio: f64) -> Self {
        Needs { outlier_ratio: Some(ratio), ..Needs::default() }
    }

    /// With whole rows of about `weights` weights together.
    #[must_use]
    pub fn with_sample(self, weights: usize) -> Self {
        Needs { sample: Some(weights), ..self }
    }

    /// With what is known of inputs and outputs.
    #[must_use]
    pub fn with_calibration(self, calibration: Wanted) -> Self {
        Needs { calibration, ..self }
    }

    /// How often each magnitude occurs.
    pub fn magnitudes() -> Self {
        Needs { magnitudes: true, ..Needs::default() }
    }
}

/// Which weights are the `count` largest by magnitude: all above the threshold, and of those equal to it
/// the first ones by index.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OutlierSelection {
    /// Weights selected: `round(ratio * weights)`.
    pub count: u64,
    /// Bits of the threshold magnitude as a non-negative f32 (bit order is magnitude order). Where nothing
    /// is selected, the bits of infinity.
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
    /// Present where [`Needs::magnitudes`] was asked for.
    pub magnitudes: Option<Magnitudes>,
    /// Present where [`Needs::sample`] was asked for.
    pub sample: Option<RowSample>,
    /// Present where [`Needs::calibration`] was wanted and the map was calibrated. Whoever encodes puts it here.
    pub calibration: Option<Calibration>,
}
