//! What is known of a linear map's inputs and outputs, in the form that error feedback needs.

mod cholesky;
mod drift;
mod factor;
mod inputs;
mod last;
mod moments;
#[cfg(test)]
mod tests;

pub use factor::{FactorReport, UpperFactor};
pub use inputs::{ColumnOrder, InputFactor};
pub use last::{InputsId, LastFactor};
pub use moments::{Calibration, DenseMoments, Moments};
