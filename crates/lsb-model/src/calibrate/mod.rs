//! Calibration: what linear maps are fed with while a model reads a text.

mod gather;
mod moments;
mod pass;
#[cfg(test)]
mod tests;
mod text;
mod weighting;

pub use text::TextCalibration;
